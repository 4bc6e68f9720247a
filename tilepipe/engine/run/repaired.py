"""An image that was repaired between two runs: which blocks it leaves as they are.

A repair changes the image's fingerprint, and so would have the run refused as one of another
image. But every block's receipt holds a hash of the pixels that the block read. Where parts of the
image could not be read, the image is read once more and compared: what is the same stays, and what
is not is computed again.
"""

from __future__ import annotations

from dataclasses import replace

from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.options import RunOptions
from tilepipe.engine.plan.plan import Plan, image_facts
from tilepipe.engine.plan.scale import choose_scale
from tilepipe.engine.run.same_image import Look, changed_blocks, done_receipts
from tilepipe.engine.state.folder import RunState
from tilepipe.engine.state.ledger import Ledger
from tilepipe.engine.state.progress import Progress
from tilepipe.images import Image
from tilepipe.models.file import Model


def resume_on_repaired_image(
    plan: Plan,
    state: RunState,
    options: RunOptions,
    image: Image,
    model: Model,
    look: Look,
    watch: RunCallbacks,
) -> Plan:
    """The plan for the image as it is now, where it is the run's image, repaired.

    Otherwise the plan as it is. Blocks whose pixels have changed are forgotten in the ledger; if
    they are more than half of those compared, this is another image, and nothing is forgotten.
    """
    if look.fingerprint == plan.image.fingerprint:
        return plan
    facts = image_facts(image, choose_scale(image, model, options))
    if replace(facts, path="", fingerprint="") != replace(plan.image, path="", fingerprint=""):
        return plan
    progress = Progress.from_ledger(state.ledger_file)
    if not progress.partial:
        return plan
    watch.stage("comparing the image, which has changed, with what was read of it")
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
