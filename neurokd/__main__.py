"""``python -m neurokd``; also ``torchrun --nproc-per-node N -m neurokd train ...``."""

from __future__ import annotations

from neurokd.cli import main

if __name__ == "__main__":
    main()
