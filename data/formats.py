"""Which source reads a path: told from its name, and for a folder from the names in it. Nothing is opened."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (
    (".npz", "npz"),
    (".csv", "csv"),
    (".tsv", "csv"),
    (".txt", "csv"),
    (".jsonl", "jsonl"),
    (".zip", "zip"),
    (".tar", "webdataset"),
    (".parquet", "table"),
    (".arrow", "table"),
    (".mdb", "lmdb"),
)
IN_A_FOLDER = (
    ("data.mdb", "lmdb"),
    ("dataset_dict.json", "table"),
    ("state.json", "table"),
    ("list_eval_partition.txt", "celeba-files"),
    ("metadata.csv", "camelyon17-files"),
    ("data_batch_1*", "batches"),
    ("train_data_batch_1*", "batches"),
    ("train.bin", "batches"),
    ("*-ubyte", "idx"),
    ("*-ubyte.gz", "idx"),
    ("*.parquet", "table"),
    ("data/*.parquet", "table"),
    ("*.tar", "webdataset"),
)
READ = (
    "a folder of images, .npz, .zip, .csv, .tsv, .txt, .jsonl, .parquet, .tar shards, LMDB, idx files or CIFAR batches"
)


def kind_of(path: Path) -> str | None:
    """The kind of source for a path that is there; None for a file that no source reads.

    A folder in which nothing is recognised is one of images.
    """
    if path.is_dir():
        return next((kind for pattern, kind in IN_A_FOLDER if any(path.glob(pattern))), "folder")
    return next((kind for suffix, kind in SUFFIXES if path.name.lower().endswith(suffix)), None)
