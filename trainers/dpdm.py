"""DPDM (Dockhorn et al. 2023, TMLR): DP-SGD on a diffusion model from scratch, with noise multiplicity.

    for step 1 to T:
        draw each record with probability q
        g_i  = gradient of the mean over K noise draws of record i's denoising loss
        G    = (sum of g_i cut to norm C + sigma C N(0, I)) / (q N);  Adam
    sample from the averaged weights

Asked of the private set: the sum of cut gradients, T times; a record moves it by at most C. One event:
`SampledGaussian(q, sigma, T)`. No public data.
"""

from __future__ import annotations

from typing import Literal

from .course import DiffusionMethod


class DPDM(DiffusionMethod, frozen=True):
    """`kind = "dpdm"`."""

    kind: Literal["dpdm"] = "dpdm"
