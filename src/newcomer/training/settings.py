"""Constrained types of settings."""

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
"""Integer ≥ 1."""

Width = Annotated[int, Field(ge=1, le=2**16)]
"""Number of units of a layer: at most 65,536, beyond which its weights fit no memory."""

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""Positive learning rate."""

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Float ≥ 0."""

Share = Annotated[float, Field(ge=0, le=1)]
"""Fraction in [0, 1]."""

KeptShare = Annotated[float, Field(ge=1e-6, le=1)]
"""Share that sampling kept: from a millionth, below which clicks would be rarer than a model can learn, to all."""

Times = Annotated[int, Field(ge=0)]
"""Integer ≥ 0."""
