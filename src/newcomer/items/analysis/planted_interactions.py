"""In a simulated world: whether the heaviest edge of an item's graph is the interaction that was planted in it."""

from collections.abc import Mapping, Sequence

import torch

from newcomer.data.schema import Field
from newcomer.settings import Json
from newcomer.shapes import Float, Int, Tensor


def planted_and_found(
    answers: Mapping[int, str],
    nodes: Sequence[Field],
    cold: Float[Tensor, "item field other"],
    graphs: Float[Tensor, "item field other"],
) -> dict[str, Json] | None:
    """How the planted pairs of fields stand among all F (F − 1) / 2 in the items' graphs; None where nothing was planted.

    `answers`: by number of the item, 'one × other'. An item's pair is found when no other weighs as much; its rank is 1 then, and
    equal weights share the mean of their ranks.

    - `items`: how many have an answer, `pairs`: how many there are to guess from;
    - `found`, `rank`: of how many items the pair is found, and its median rank, as the graphs are used; `found cold`, `rank cold`:
      as they were written;
    - `names`: the planted pairs, in the order of the fields; `kinds`: in the same order, of the items that have the pair, how many
      `items`, how many `found`, the mean `rank`, their mean `weights` at all planted pairs, and the heaviest of the `other` pairs
      in their mean graph with its `weight`.
    """
    if not answers:
        return None
    one, other = torch.triu_indices(len(nodes), len(nodes), offset=1)
    fields = [node.name for node in nodes]
    names = [f"{fields[m]} × {fields[n]}" for m, n in zip(one.tolist(), other.tolist(), strict=True)]
    items = torch.tensor(list(answers))
    pair = torch.tensor([names.index(name) for name in answers.values()])
    weights, before = graphs[items][:, one, other], cold[items][:, one, other]
    rank, rank_cold = _ranks(weights, pair), _ranks(before, pair)
    planted = sorted(set(pair.tolist()))
    return {
        "items": len(items),
        "pairs": len(names),
        "found": int((rank == 1).sum()),
        "rank": rank.median().item(),
        "found cold": int((rank_cold == 1).sum()),
        "rank cold": rank_cold.median().item(),
        "names": [names[kind] for kind in planted],
        "kinds": [_kind(weights[pair == kind], rank[pair == kind], planted, names) for kind in planted],
    }


def _ranks(weights: Float[Tensor, "item pair"], pair: Int[Tensor, " item"]) -> Float[Tensor, " item"]:
    own = weights.gather(1, pair[:, None])
    return 1 + (weights > own).sum(dim=1) + ((weights == own).sum(dim=1) - 1) / 2


def _kind(weights: Tensor, rank: Tensor, planted: list[int], names: list[str]) -> dict[str, Json]:
    mean = weights.mean(dim=0)
    rest = mean.clone()
    rest[planted] = -torch.inf
    heaviest = int(rest.argmax())
    return {
        "items": len(rank),
        "found": int((rank == 1).sum()),
        "rank": rank.mean().item(),
        "weights": mean[planted].tolist(),
        "other": names[heaviest],
        "weight": mean[heaviest].item(),
    }
