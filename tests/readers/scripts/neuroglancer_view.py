"""Shows OME-Zarrs in neuroglancer, in Chromium: CHROMIUM FOLDER PICTURE UM KIND NAME...

Layers are of KIND (image or segmentation), with pixels of UM micrometres, each a pixel of the
picture; prints as JSON what each of them is.
"""

import functools
import json
import subprocess
import sys
import tempfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path

import neuroglancer


class Shared(SimpleHTTPRequestHandler):
    def end_headers(self):
        self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()

    def log_message(self, *_):
        pass


def main():
    chromium, folder, picture, um, kind, *names = sys.argv[1:]
    handler = functools.partial(Shared, directory=folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    make = {"image": neuroglancer.ImageLayer, "segmentation": neuroglancer.SegmentationLayer}[kind]
    viewer = neuroglancer.Viewer()
    # In the order of the file, y and x, it would draw rows from top to bottom.
    across = neuroglancer.CoordinateSpace(names=["x", "y"], units="um", scales=[float(um)] * 2)
    with viewer.txn() as state:
        state.dimensions = across
        for name in names:
            url = f"zarr://http://127.0.0.1:{server.server_address[1]}/{name}/"
            state.layers[name] = make(source=url)
            if kind == "segmentation":
                state.layers[name].segments = [1, 2]
        state.layout = "xy"
        state.show_axis_lines = False
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            chromium, "--headless", "--no-sandbox", "--use-angle=swiftshader",
            "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", f"--user-data-dir={profile}",
            "--window-size=1500,1200", viewer.get_viewer_url(),
        ]  # fmt: skip
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            shot = viewer.screenshot(size=[1500, 1200])
            Path(picture).write_bytes(shot.screenshot.image)
            state = viewer.state.to_json()
        finally:
            browser.terminate()
            browser.wait()
    facts = {key: state.get(key) for key in ("dimensions", "layers")}
    sys.stdout.write(json.dumps({"version": version("neuroglancer"), **facts}) + "\n")


main()
