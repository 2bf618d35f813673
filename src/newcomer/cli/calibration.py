"""`newcomer calibrate`: fit a click model's calibration anew."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from newcomer.cli.aligned import print_table
from newcomer.cli.program import app, say
from newcomer.data.io.log_reader import read_log
from newcomer.errors import SettingError
from newcomer.items.calibration import Calibration
from newcomer.items.learner import ItemLearner
from newcomer.registry import LEARNERS
from newcomer.store.folder import Store
from newcomer.training.learner import locked


@app.command()
def calibrate(
    store: Annotated[Path, typer.Argument(help="Folder of a click model.")],
    log: Annotated[
        str, typer.Argument(help="Click log with events of items that it was not trained on, from their first ones.")
    ],
) -> None:
    """Fit a click model's calibration anew. It needs events of 50 new items, with the items' fields; weights and items stay as they
    are. `newcomer checkout` goes back."""
    kind = LEARNERS.get(Store(store).manifest().learner)
    if kind is None or not issubclass(kind, ItemLearner):
        raise SettingError(f"{store}: holds a classifier, whose probabilities are calibrated when it learns")
    with locked(store):
        model = kind.load(store)
        before = model.calibration
        model.calibrate(read_log(log, model.schema))
        model.save(store)
    say(f"{store}: calibrated; a service that has it open goes on as before until it is started again")
    say("click probabilities by an item's number of events, where the network says .5:")
    events = np.array(model.calibration.events)
    rows = [(str(n), *(_at_even_odds(one, n) for one in (before, model.calibration))) for n in events.tolist()]
    print_table(("events", "before", "now"), rows)


def _at_even_odds(calibration: Calibration, events: int) -> str:
    """Click probability where the network says 1 / 2."""
    return f"{1 / (1 + np.exp(-calibration([0.0], [events])[0])):.3f}"
