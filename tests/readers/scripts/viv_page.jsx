/* Shows ?image=URL as viv's own picture-in-picture viewer does; facts are left in window.facts. */

import { createElement } from "react";
import { createRoot } from "react-dom/client";
import {
  ColorPaletteExtension,
  PictureInPictureViewer,
  loadOmeTiff,
  loadOmeZarr,
} from "@hms-dbmi/viv";

const asked = new URLSearchParams(window.location.search);
const url = new URL(asked.get("image"), window.location.href).href;
const COLOURS = [[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]];

async function opened() {
  if (url.endsWith(".tif")) {
    const { data, metadata } = await loadOmeTiff(url);
    const { Channels, PhysicalSizeX } = metadata.Pixels;
    const channels = Channels.map((c) => ({ name: c.Name, colour: c.Color, limits: null }));
    return { data, channels, pixel: PhysicalSizeX };
  }
  const { data, metadata } = await loadOmeZarr(url, { type: "multiscales" });
  const omero = metadata.omero || (metadata.ome && metadata.ome.omero);
  const channels = ((omero && omero.channels) || []).map((c) => ({
    name: c.label,
    colour: [0, 2, 4].map((at) => parseInt(c.color.slice(at, at + 2), 16)),
    limits: c.window && [c.window.start, c.window.end],
  }));
  return { data, channels, pixel: null };
}

async function main() {
  const { data, channels, pixel } = await opened();
  const { labels, shape, dtype } = data[0];
  const count = labels.includes("c") ? shape[labels.indexOf("c")] : 1;
  const outer = Object.fromEntries(labels.slice(0, -2).map((label) => [label, 0]));
  const selections = [...Array(count).keys()].map((c) => ("c" in outer ? { ...outer, c } : outer));
  const limits = dtype === "Float32" ? [0, 1] : [0, 255];
  const of = (n) => channels[n] || {};
  window.facts = { labels, dtype, levels: data.map((level) => level.shape), channels, pixel };
  const props = {
    loader: data,
    selections,
    contrastLimits: selections.map((_, n) => of(n).limits || limits),
    colors: selections.map((_, n) => (of(n).colour || COLOURS[n % 4]).slice(0, 3)),
    channelsVisible: selections.map(() => true),
    extensions: [new ColorPaletteExtension()],
    overview: undefined,
    overviewOn: false,
    height: 550,
    width: 700,
    onViewportLoad: () => { window.shown = true; },
  };
  createRoot(document.getElementById("root")).render(createElement(PictureInPictureViewer, props));
}

main().catch((error) => {
  window.facts = { error: String(error) };
  window.shown = true;
});
