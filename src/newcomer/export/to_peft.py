"""Export to peft: a LoRA adapter and the classifier, and the encoder if it is not on the hub."""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from newcomer.classes.learner import ClassLearner
from newcomer.classes.lora_adapters import LoRAAdapter
from newcomer.errors import LearnerError
from newcomer.export.card import card
from newcomer.export.folder import atomic_folder
from newcomer.nn.lora.fused_linear import FusedLinear
from newcomer.shapes import Float, Tensor

BASE = "base"
"""The folder of the encoder in the export, where it is not on the hub."""
KEPT = (".json", ".safetensors", ".txt", ".model")
"""How the files of a model end that belong to it; pickled weights only where there are no others."""

Factors = tuple[Float[Tensor, "width_out rank"], Float[Tensor, "rank width_in"]]


def export(learner: ClassLearner, folder: Path) -> None:
    """Write all directions as one plain LoRA of the encoder: its rank is the sum of theirs, magnitudes are multiplied into B.

    An encoder from the hub is referenced by name; any other is copied into the folder `base`.
    Raises LearnerError if nothing was adapted; StoreError: see `atomic_folder`.
    """
    (weight, bias), points = learner.linear_classifier(), learner.support_points
    if not isinstance(learner.adapter, LoRAAdapter) or not learner.adapter.lora.terms(0)[0].shape[1]:
        raise LearnerError(
            f"{type(learner).__name__} has no low-rank update, so there is no LoRA; export with --to transformers"
        )
    backbone = learner.backbone
    base = BASE if backbone.files else backbone.name
    factors = _layers(learner.adapter)
    ranks = {down.shape[0] for _, down in factors.values()}
    (rank,) = ranks
    adapter = {
        "peft_type": "LORA",
        "base_model_name_or_path": base,
        "r": rank,
        "lora_alpha": rank,  # B A as it is
        "target_modules": sorted(factors),
        "fan_in_fan_out": not backbone.transposed.isdisjoint(factors),
        "inference_mode": True,
    }
    loads = type(backbone.model).__name__
    head = {
        "classes": learner.classes,
        "base": {"name": base, "class": loads, "fingerprint": backbone.fingerprint},
        "pooling": backbone.pooling,
        **({"size": backbone.size} if backbone.reads_images else {"max_tokens": backbone.max_tokens}),
    }
    location = f"this-folder/{BASE}" if backbone.files else backbone.name
    load = (
        f"from peft import PeftModel\nfrom transformers import {loads}\n"
        f'encoder = PeftModel.from_pretrained({loads}.from_pretrained("{location}"), "this-folder")'
    )
    classifier = {"weight": weight.contiguous(), "bias": bias} | ({} if points is None else {"points": points})
    remarks = [
        f"The logits are {'x' if points is None else 'k'} Wᵀ + b: x is what the encoder gives, pooled by '{backbone.pooling}';"
        " W and b lie in `head.safetensors`, the names of the classes in `head.json`."
    ]
    if backbone.files:
        remarks.append(f"The encoder is not on the hub by this name, so it comes along in `{BASE}`.")
    if points is not None:
        remarks.append(
            "k holds |x||z| (sin θ + (π − θ) cos θ) / 2π for each z of the `points` beside W, θ being its angle to x."
        )
    if backbone.resized:
        remarks.append(
            f"Its images are of {backbone.size} pixels: call the encoder with `interpolate_pos_encoding=True`."
        )
    with atomic_folder(folder) as part:
        named = {
            f"base_model.model.{name}.lora_{side}.weight": t
            for name, (b, a) in factors.items()
            for side, t in (("A", a), ("B", b))
        }
        if backbone.files:
            _copy(Path(backbone.files), part / BASE)
        save_file(named, part / "adapter_model.safetensors", metadata={"format": "pt"})
        save_file(classifier, part / "head.safetensors", metadata={"format": "pt"})
        for name, content in (("adapter_config", adapter), ("head", head)):
            (part / f"{name}.json").write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")
        text = card(learner, "A LoRA adapter for peft, and a classifier.", load, *remarks)
        (part / "README.md").write_text(text, encoding="utf-8")


def _copy(model: Path, folder: Path) -> None:
    """Copy the files of a model, and no others in its folder."""
    folder.mkdir()
    files = [file for file in sorted(model.iterdir()) if file.is_file()]
    safe = any(file.suffix == ".safetensors" for file in files)
    for file in files:
        if file.suffix in KEPT or (file.suffix == ".bin" and not safe):
            shutil.copyfile(file, folder / file.name)


def _layers(adapter: LoRAAdapter) -> dict[str, Factors]:
    """Factors of the update of each linear layer, under the encoder's original names, before fused layers were split."""
    model, found = adapter.backbone.model, dict[str, Factors]()
    for p, name in enumerate(adapter.backbone.projections):
        up, down = (factor.detach().cpu() for factor in adapter.lora.terms(p))
        whole, _, part = name.rpartition(".")
        if isinstance(layer := model.get_submodule(whole), FusedLinear):
            # The parts' ranks stand side by side, each with rows of its own.
            rows = up.new_zeros(len(FusedLinear.PARTS) * up.shape[0], up.shape[1])
            rows[layer.rows(part, len(rows))] = up
            if whole in found:
                up, down = torch.cat([found[whole][0], rows], dim=1), torch.cat([found[whole][1], down])
            else:
                up = rows
            name = whole
        found[name] = up.contiguous(), down.contiguous()
    return found
