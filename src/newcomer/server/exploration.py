"""The options `explore`, `strength` and `epsilon` of `POST /score`: the order of candidates, and the propensity of the first."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self

import numpy as np
import polars as pl

from newcomer.items.serving.candidates import ITEM
from newcomer.items.serving.exploration import Explore, rank
from newcomer.server.bodies import SCORE_OPTIONS
from newcomer.server.problems import ProblemError
from newcomer.settings import Json


@dataclass(frozen=True)
class Exploration:
    """What a request asks for: see `rank`."""

    explore: Explore
    strength: float
    epsilon: float

    @classmethod
    def asked_for(cls, options: Mapping[str, Any], has_posterior: bool) -> Self | None:
        """None if `explore` is not among the options. Raises ProblemError for options that do not fit.

        `has_posterior`: whether logits of the model have a std.
        """
        own = {name: options.get(name, SCORE_OPTIONS[name][1]) for name in ("explore", "strength", "epsilon")}
        if own["explore"] is None:
            for name in ("strength", "epsilon"):
                if own[name] != SCORE_OPTIONS[name][1]:
                    raise _problem(f"/{name}", "has no effect without 'explore'; give that too, or leave this out")
            return None
        if own["explore"] != "none" and not has_posterior:
            detail = f"is '{own['explore']}', but this model's logits have no std; give 'none'"
            raise _problem("/explore", detail)
        return cls(**own)

    @property
    def needs_std(self) -> bool:
        return self.explore != "none"

    def ranking(self, answers: pl.DataFrame, request_id: str) -> dict[str, Json]:
        """`order` and `propensity` of these answers; chance is a function of the request id.

        Raises ProblemError for an item that is there twice, whose logits are one, and for answers without any score.
        """
        for n in np.flatnonzero(answers[ITEM].is_not_null() & ~answers[ITEM].is_first_distinct())[:1].tolist():
            detail = f"item '{answers[ITEM][n]}' is there twice; with 'explore' give each candidate once"
            raise _problem(f"/candidates/{n}", detail)
        scored = answers.with_row_index("position").drop_nulls("logit")
        if not len(scored):
            raise _problem("/candidates", "none has a score, so there is no order; leave 'explore' out")
        stds = scored["logit_std"].fill_null(np.nan).to_numpy()
        found = rank(
            scored["logit"].to_numpy(), stds, self.explore, request_id, strength=self.strength, epsilon=self.epsilon
        )
        return {"order": scored["position"].to_numpy()[found.order].tolist(), "propensity": found.propensity}


def _problem(pointer: str, detail: str) -> ProblemError:
    return ProblemError(
        HTTPStatus.UNPROCESSABLE_ENTITY, f"{pointer}: {detail}", [{"pointer": pointer, "detail": detail}]
    )
