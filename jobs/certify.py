"""The certificate of a run: which files it covers and what it declares."""

from __future__ import annotations

from ..privacy import statement
from ..privacy.ledger import Ledger
from ..privacy.statement import Certificate
from .published import publishable
from .run import Run

MADE_AFTERWARDS = {statement.CHAIN_FILE, statement.FILE, statement.TEXT_FILE, "report.html"}


def certify(ledger: Ledger, run: Run) -> Certificate:
    """Write the certificate over everything that may be published; the images are covered by their list of checksums."""
    manifest = run.manifest
    covered = [
        path
        for path in publishable(run.folder)
        if path.name not in MADE_AFTERWARDS and path.parent.as_posix() != "release/images"
    ]
    shares = manifest["label_shares"]
    return statement.write(
        ledger,
        run.planned_by,
        release_dir=run.release,
        artefacts={path.as_posix(): run.folder / path for path in covered},
        manifest={
            "commit": ", ".join(manifest["commits"]),
            "versions": manifest["versions"],
            "public": [
                "class list",
                "image size",
                "split rule",
                f"label shares ({shares})",
                *(["the test part"] if manifest["test_is_public"] else []),
            ],
            "models": [{"role": role, **identity} for role, identity in manifest["identities"].items()],
            "prompts": manifest["prompts"],
            "assumptions": manifest.get("assumptions", []),
        },
    )
