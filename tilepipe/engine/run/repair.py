"""An image that was repaired between two runs: which blocks it leaves as they are.

A repair changes the image's fingerprint, and so would have the run refused as one of another
image. But every block's receipt holds a hash of the pixels that the block read. Where parts of the
image could not be read, the image is read once more and compared: what is the same stays, and what
is not is computed again.
"""

from __future__ import annotations

from dataclasses import replace

from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.plan.scale import choose_scale
from tilepipe.engine.planning.facts import image_facts
from tilepipe.engine.run.finished import Request
from tilepipe.engine.run.same_image import changed_blocks, done_receipts
from tilepipe.engine.state.ledger import Ledger
from tilepipe.engine.state.progress import Progress


def resume_on_repaired_image(plan: Plan, request: Request, callbacks: RunCallbacks) -> Plan:
    """The plan for the image as it is now, where it is the run's image, repaired.

    Otherwise the plan as it is. Blocks whose pixels have changed are forgotten in the ledger; if
    they are more than half of those compared, this is another image, and nothing is forgotten.
    """
    options, image, look = request.options, request.image, request.look
    state = request.outputs.state
    if look.fingerprint == plan.image.fingerprint:
        return plan
    facts = image_facts(image, choose_scale(image, request.model, options))
    if replace(facts, path="", fingerprint="") != replace(plan.image, path="", fingerprint=""):
        return plan
    progress = Progress.from_ledger(state.ledger_file)
    if not progress.partial:
        return plan
    callbacks.stage("comparing the image, which has changed, with what was read of it")
    sound = done_receipts(state.ledger_file, progress)
    changed = list(changed_blocks(image, plan, sound))
    if 2 * len(changed) > len(sound):
        return plan
    adopted = replace(plan, image=replace(plan.image, fingerprint=look.fingerprint))
    with state.locked():
        # The ledger first: stopped in between, all is compared again.
        with Ledger(state.ledger_file) as ledger:
            for number in changed:
                ledger.append({"kind": "changed", "number": number})
            ledger.append({"kind": "image", "identity": look.identity})
        state.freeze(adopted)
    return adopted
