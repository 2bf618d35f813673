"""Words for what a setting may be."""

from typing import Annotated

from pydantic import Field

Count = Annotated[int, Field(ge=1)]
"""A whole number from 1 on."""

Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A positive step size."""

NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A size that may be nothing."""

Share = Annotated[float, Field(ge=0, le=1)]
"""A part of a whole."""

Times = Annotated[int, Field(ge=0)]
"""How often, 0 for never."""
