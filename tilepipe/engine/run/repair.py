"""Resuming a run after its image was repaired.

A repair changes the image's fingerprint, so the run would be refused as one of another image. But
every block's report holds a hash of the pixels that the block read. If parts of the image could not
be read, the image is read once more and compared: blocks that are the same are kept, and the others
are computed again.
"""

from __future__ import annotations

from dataclasses import replace

from tilepipe.engine.events import RunCallbacks
from tilepipe.engine.plan.plan import Plan
from tilepipe.engine.plan.scale import choose_scale
from tilepipe.engine.planning.facts import image_facts
from tilepipe.engine.run.finished import Request
from tilepipe.engine.run.same_image import changed_blocks, done_reports, forget
from tilepipe.engine.state.ledger import Ledger
from tilepipe.engine.state.progress import Progress


def resume_on_repaired_image(plan: Plan, request: Request, callbacks: RunCallbacks) -> Plan:
    """The plan, adapted to the image if that is the run's image, repaired; otherwise unchanged.

    Blocks whose pixels have changed are forgotten in the ledger. If they are more than half of
    those compared, it is another image, and nothing is forgotten.
    """
    options, image, now = request.options, request.image, request.image_state
    state = request.outputs.state
    if now.fingerprint == plan.image.fingerprint:
        return plan
    facts = image_facts(image, choose_scale(image, request.model, options))
    if replace(facts, path="", fingerprint="") != replace(plan.image, path="", fingerprint=""):
        return plan
    if not Progress.from_ledger(state.ledger_file).partial:
        return plan
    callbacks.stage("comparing the image, which has changed, with what was read of it")
    sound = done_reports(state.ledger_file)
    changed = changed_blocks(image, plan, sound)
    if 2 * len(changed) > len(sound):
        return plan
    adopted = replace(plan, image=replace(plan.image, fingerprint=now.fingerprint))
    with state.locked():
        # The ledger first: after an interruption in between, all is compared again.
        with Ledger(state.ledger_file) as ledger:
            forget(ledger, changed)
            ledger.append({"kind": "image", "identity": now.identity})
        state.freeze(adopted)
    return adopted
