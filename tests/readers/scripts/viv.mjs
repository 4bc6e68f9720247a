/* Opens pages of viv in Chromium: MODULES FOLDER PICTURES CHROMIUM IMAGE...

Prints what viv says of each image of FOLDER as JSON, and writes its picture into PICTURES.
*/

import { createServer } from "node:http";
import { createRequire } from "node:module";
import { open, stat } from "node:fs/promises";
import path from "node:path";

const [modules, folder, pictures, chromium, ...images] = process.argv.slice(2);
const require = createRequire(path.join(modules, "package.json"));
const esbuild = require("esbuild");
const puppeteer = require("puppeteer-core");

const here = path.dirname(new URL(import.meta.url).pathname);
const built = await esbuild.build({
  entryPoints: [path.join(here, "viv_page.jsx")],
  bundle: true, write: false, format: "esm", nodePaths: [path.join(modules, "node_modules")],
  define: { "process.env.NODE_ENV": '"production"', global: "window" }, logLevel: "error",
});
const page = '<body style="margin:0;background:#000"><div id="root"></div>'
  + '<script type="module" src="/page.js"></script>';

async function answer(request, response) {
  const { pathname } = new URL(request.url, "http://localhost");
  if (pathname === "/") return response.end(page);
  if (pathname === "/page.js") {
    response.setHeader("Content-Type", "text/javascript");
    return response.end(built.outputFiles[0].contents);
  }
  let file;
  try {
    const name = path.join(folder, decodeURIComponent(pathname));
    if (!(await stat(name)).isFile()) throw new Error("no file");
    file = await open(name);
    const { size } = await file.stat();
    const range = /bytes=(\d+)-(\d*)/.exec(request.headers.range || "");
    const start = range ? Number(range[1]) : 0;
    const end = range && range[2] ? Math.min(Number(range[2]), size - 1) : size - 1;
    const bytes = Buffer.alloc(Math.max(0, end - start + 1));
    await file.read(bytes, 0, bytes.length, start);
    response.writeHead(range ? 206 : 200, {
      "Content-Length": bytes.length,
      ...(range ? { "Content-Range": `bytes ${start}-${end}/${size}` } : {}),
    });
    return response.end(bytes);
  } catch {
    response.writeHead(404);
    return response.end();
  } finally {
    await file?.close();
  }
}

const server = createServer(answer);
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const browser = await puppeteer.launch({
  executablePath: chromium,
  args: ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"],
});
const facts = {};
for (const image of images) {
  const tab = await browser.newPage();
  const said = [];
  tab.on("pageerror", (error) => said.push(String(error)));
  await tab.setViewport({ width: 700, height: 550 });
  await tab.goto(`http://127.0.0.1:${server.address().port}/?image=${encodeURIComponent(image)}`);
  await tab.waitForFunction("window.shown", { timeout: 60000 }).catch(() => said.push("not shown"));
  await new Promise((done) => setTimeout(done, 500));
  const picture = path.join(pictures, `${image.replaceAll("/", "_")}.png`);
  await tab.screenshot({ path: picture });
  facts[image] = { ...(await tab.evaluate("window.facts")), picture, said };
  await tab.close();
}
await browser.close();
server.close();
console.log(JSON.stringify(facts));
