"""The command line: parse, load a job, hand over, print. It decides nothing.

Exit codes: 0 done, 1 a check did not hold, 2 the input is wrong, 3 the budget or a limit stopped it, 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import difflib
import os
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from . import __version__

DONE, FAILED_CHECK, WRONG_INPUT, LIMIT, INTERRUPTED = 0, 1, 2, 3, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code. Errors are one line on stderr; `--debug` adds the traceback."""
    options = _parser().parse_args(arguments)
    if options.command is None:
        _parser().print_help()
        return DONE
    try:
        return options.handler(options)
    except KeyboardInterrupt:
        again = shlex.join(["privolve", *(sys.argv[1:] if arguments is None else arguments)])
        _complain(f"stopped; nothing is lost, the same command goes on from here: {again}")
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:  # noqa: BLE001  the last place: one line instead of a traceback
        code = _exit_code(error)
        if options.debug:
            import traceback

            traceback.print_exc()
        _complain(_one_line(error, code))
        return code


def _exit_code(error: Exception) -> int:
    from .jobs.errors import exit_code

    return exit_code(error)


def _one_line(error: Exception, code: int) -> str:
    from .jobs.errors import one_line

    return one_line(error, code)


def _complain(message: str) -> None:
    print(f"privolve: {message}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """As argparse, but that what is wrong takes one line, with the way out."""

    def error(self, message: str) -> NoReturn:
        given, _, known = message.partition(" (choose from ")
        word = given.partition("invalid choice: ")[2].strip("'")
        close = difflib.get_close_matches(word, re.findall(r"[\w-]+", known), n=1) if word else []
        hint = f"did you mean {close[0]!r}? " if close else ""
        _complain(f"{given if hint else message}; {hint}`{self.prog} --help` says what there is")
        self.exit(WRONG_INPUT)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="privolve",
        description="Differentially private synthetic images and text.",
        epilog="Exit codes: 0 done, 1 a check did not hold, 2 the input is wrong, 3 the budget or a limit stopped it, "
        "130 stopped by Ctrl-C.",
    )
    parser.add_argument("--version", action="version", version=f"privolve {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")

    init = commands.add_parser("init", help="print a commented job file to start from")
    init.add_argument("kind", metavar="KIND", help="dpiti, image-pe or train")
    init.add_argument(
        "--data", type=Path, metavar="PATH", help="look at this folder or file and propose the [data] table"
    )
    init.add_argument("--out", type=Path, metavar="FILE", help="write it to FILE (never over an existing one)")
    init.set_defaults(handler=_init)

    plan = commands.add_parser(
        "plan", help="what a job, or every cell of a suite, would ask, cost and release; opens no model and no record"
    )
    _job_arguments(plan, "a job file, as `init` writes one, or a suite's")
    plan.set_defaults(handler=_plan)

    run = commands.add_parser("run", help="run a job, or go on with one that stopped")
    _job_arguments(run)
    run.add_argument(
        "--out", type=Path, metavar="DIR", help="the run's folder (default: experiments/DATE-KIND-NAME-HASH)"
    )
    run.add_argument(
        "--reuse", metavar="NAME", help="share answers with every run of this name, instead of drawing anew"
    )
    run.add_argument(
        "--retry-refused", action="store_true", help="ask again what a model refused in an earlier try of this run"
    )
    run.set_defaults(handler=_run)

    report = commands.add_parser("report", help="make the report page of a run again")
    report.add_argument("run", type=Path, metavar="RUN")
    report.set_defaults(handler=_report)

    verify = commands.add_parser("verify", help="recompute a run's certificate; exit 1 if it does not hold")
    verify.add_argument("run", type=Path, metavar="RUN", help="a run's folder, or what `export` made of it")
    verify.add_argument(
        "--ledger", action="store_true", help="as of now, against the live ledger, not as of the run's end"
    )
    verify.set_defaults(handler=_verify)

    ledger = commands.add_parser(
        "ledger", help="what a ledger holds and what is left of it, finished runs or not; exit 1 if it does not hold"
    )
    ledger.add_argument(
        "path", type=Path, metavar="PATH", help="a ledger's folder, such as ledgers/NAME, or the folder of several"
    )
    ledger.set_defaults(handler=_ledger)

    export = commands.add_parser("export", help="copy what may leave of a run, by allow-list")
    export.add_argument("run", type=Path, metavar="RUN")
    export.add_argument("folder", type=Path, metavar="DIR")
    export.set_defaults(handler=_export)

    evaluate = commands.add_parser(
        "evaluate",
        help="judge any images against any data set: utility and fidelity",
        description="Judge a folder of images (a subfolder a class, CLASS_anything.png, or labels.csv with FILE,LABEL rows), "
        "an .npz (x, y) or a run by a data set's held-out part. The images are taken for released. Figures on a private "
        "held-out part go to private/ alone.",
    )
    evaluate.add_argument("samples", type=Path, metavar="SAMPLES")
    evaluate.add_argument(
        "--data", type=Path, required=True, metavar="FILE.toml", help="a job file, or one with a [data] table alone"
    )
    evaluate.add_argument("--judge", metavar="KIND", help="the adapter that measures images (default: the job's)")
    evaluate.add_argument(
        "--profile", choices=("logistic", "tiny", "paper", "paper-cifar"), help="which classifiers (default: the job's)"
    )
    evaluate.add_argument("--metrics", metavar="NAME,NAME", help="of `privolve metrics` (default: the job's)")
    evaluate.add_argument("--fit", action="store_true", help="convert images of another size, or grey and colour")
    _settings(evaluate)
    evaluate.add_argument("--out", type=Path, metavar="DIR", help="(default: experiments/DATE-evaluate-NAME-HASH)")
    evaluate.set_defaults(handler=_evaluate)

    compare = commands.add_parser(
        "compare",
        help="methods side by side: a suite of jobs, or finished runs",
        description="Run every cell of a suite that is not done yet, or take finished runs, and put them side by side: "
        "tables (Markdown, CSV, LaTeX, JSON), curves, Pareto fronts, image grids. Stopped anywhere, the same command goes on.",
    )
    compare.add_argument(
        "what", type=Path, nargs="+", metavar="SUITE.toml | RUN", help="one suite file, or runs' folders"
    )
    _settings(compare)
    compare.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="the suite's folder (default: experiments/DATE-suite-NAME-HASH); for runs, where to write what is printed",
    )
    compare.set_defaults(handler=_compare)

    audit = commands.add_parser("audit", help="check a job's mechanisms empirically, on stand-in data")
    _job_arguments(audit)
    audit.set_defaults(handler=_audit)

    serve = commands.add_parser(
        "serve",
        help="the gateway as a server of OpenAI's protocol, for other programs",
        description="Serve the roles of [adapters] at /v1 (chat/completions, images/generations, images/edits, "
        "images/variations, embeddings, models); `model` names a role. What is asked gets the cache, the retries and the "
        "limits that a job gets.",
        epilog="Inputs are public by declaration: over HTTP nothing says what is private, so whatever a client sends may "
        "be kept in the cache and seen by whoever runs the role's model. Images most often come from a data set, and "
        "captioning is where a private record meets a model: they are refused unless you state that they are public.",
    )
    serve.add_argument("file", type=Path, metavar="FILE.toml", help="a job file, or one with [adapters] alone")
    serve.add_argument("--host", default="127.0.0.1", help="where to listen; beyond loopback a token is needed")
    serve.add_argument("--port", type=int, default=8080, metavar="N", help="0: a free one (default: 8080)")
    serve.add_argument("--token-env", metavar="NAME", help="the environment variable with the token clients must send")
    serve.add_argument(
        "--inputs-are-public", action="store_true", help="you state that no client sends private images; takes images"
    )
    serve.set_defaults(handler=_serve)

    stub = commands.add_parser(
        "stub",
        help="a provider for tests on loopback: both protocols, scripted faults, no cost",
        description="Answer OpenAI's and DashScope's protocols on loopback until interrupted, as a script says.",
        epilog="A script is TOML: seed, latency_s, at_once, keys, models, and a table [[rules]] for each fault, such as "
        'path = "*/chat/completions", probability = 0.1, fault = "rate-limited", retry_after_s = 1. '
        "A fault that there is not is answered with those there are.",
    )
    stub.add_argument("--script", type=Path, metavar="FILE.toml", help="which requests meet which fault")
    stub.add_argument("--port", type=int, default=0, metavar="N", help="0: a free one (default)")
    stub.set_defaults(handler=_stub)

    cache = commands.add_parser("cache", help="the answers already paid for: stats, prune, export")
    verbs = cache.add_subparsers(dest="verb", metavar="VERB", required=True)
    stats = verbs.add_parser("stats", help="how many answers, how large, for which runs, at what cost")
    prune = verbs.add_parser("prune", help="remove answers and files that nothing names any more")
    which = prune.add_mutually_exclusive_group()
    which.add_argument("--namespace", metavar="NAME", help="the answers of one run or one --reuse name")
    which.add_argument("--older-than", type=float, metavar="DAYS", help="answers kept so long ago or longer")
    export = verbs.add_parser("export", help="copy the cache into one file")
    export.add_argument("file", type=Path, metavar="FILE", help="a new file")
    export.add_argument("--public", action="store_true", help="answers alone: no costs, accounts and request ids")
    export.add_argument("--namespace", metavar="NAME", help="the answers of one run or one --reuse name alone")
    for verb in (stats, prune, export):
        verb.add_argument(
            "--cache", type=Path, default=Path("experiments") / ".cache", metavar="DIR", help="(default: %(default)s)"
        )
        verb.set_defaults(handler=_cache)

    for name in ("adapters", "metrics"):
        listing = commands.add_parser(name, help=f"the installed {name}, without importing them")
        listing.set_defaults(handler=_listing)

    data = commands.add_parser("data", help="the data sources and published sets; `data get NAME` fetches a set")
    data.set_defaults(handler=_data)
    sets = data.add_subparsers(dest="verb", metavar="VERB")
    get = sets.add_parser("get", help="fetch a published set, or go on with one that was cut; checks what is there")
    get.add_argument("name", metavar="NAME", help="as `privolve data` lists it")
    get.add_argument("--to", type=Path, metavar="DIR", help="the folder (default: datasets/NAME)")
    get.set_defaults(handler=_data)

    doctor = commands.add_parser("doctor", help="versions, extras, devices and keys present (never shown)")
    doctor.add_argument("job", type=Path, nargs="?", metavar="JOB.toml", help="say more on the models of this job")
    doctor.set_defaults(handler=_doctor)
    return parser


def _job_arguments(parser: argparse.ArgumentParser, what: str = "a job file, as `init` writes one") -> None:
    parser.add_argument("job", type=Path, metavar="JOB.toml", help=what)
    _settings(parser)


def _settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="override one setting: privacy.epsilon=2; may be given again",
    )


def _init(options: argparse.Namespace) -> int:
    from .jobs.init import starter

    text = starter(options.kind, options.data)
    if options.out is None:
        print(text, end="")
        return DONE
    from .jobs.init import write_new

    write_new(options.out, text)
    print(f"wrote {options.out}; look through it, then: privolve plan {options.out}")
    return DONE


def _plan(options: argparse.Namespace) -> int:
    from .jobs import plan

    print(plan.of_file(options.job, options.settings))
    return DONE


def _run(options: argparse.Namespace) -> int:
    from .jobs import job, start

    settings = [*options.settings, *(["performance.retry_refused=true"] if options.retry_refused else [])]
    start.run(job.load(options.job, settings), out=options.out, reuse=options.reuse)
    return DONE


def _report(options: argparse.Namespace) -> int:
    from .jobs import page

    for path in page.rewrite(options.run):
        print(path)
    return DONE


def _verify(options: argparse.Namespace) -> int:
    from .jobs import verify

    return DONE if verify.verify(options.run, live=options.ledger) else FAILED_CHECK


def _ledger(options: argparse.Namespace) -> int:
    from .jobs import ledger_page

    return DONE if ledger_page.show(options.path) else FAILED_CHECK


def _export(options: argparse.Namespace) -> int:
    from .jobs import export

    print(f"{export.export(options.run, options.folder)} files in {options.folder}")
    return DONE


def _evaluate(options: argparse.Namespace) -> int:
    from .jobs.evaluate import evaluate

    evaluate(
        options.samples,
        options.data,
        settings=options.settings,
        judge=options.judge,
        profile=options.profile,
        metrics=None if options.metrics is None else [each for each in options.metrics.split(",") if each],
        fit=options.fit,
        out=options.out,
    )
    return DONE


def _compare(options: argparse.Namespace) -> int:
    from .jobs import compare, several, suite
    from .jobs.job import InputError

    if several.size() > 1:
        raise InputError("torchrun starts one training: give it `run` with a job, and compare in one process")
    files = [path for path in options.what if path.suffix == ".toml" or path.is_file()]
    if not files:
        return compare.runs(options.what, out=options.out)
    if len(options.what) > 1:
        raise InputError(f"{files[0]}: a suite is compared alone; give one suite file, or runs' folders")
    return compare.suite(suite.load(files[0], options.settings), out=options.out)


def _audit(options: argparse.Namespace) -> int:
    from .jobs import audit, job

    return DONE if audit.run(job.load(options.job, options.settings)) else FAILED_CHECK


def _cache(options: argparse.Namespace) -> int:
    from .jobs import caching

    if options.verb == "stats":
        print(caching.stats(options.cache))
    elif options.verb == "prune":
        print(caching.prune(options.cache, namespace=options.namespace, older_than_days=options.older_than))
    else:
        print(caching.export(options.cache, options.file, public=options.public, namespace=options.namespace))
    return DONE


def _serve(options: argparse.Namespace) -> int:
    from .jobs import serve

    serve.serve(
        options.file,
        host=options.host,
        port=options.port,
        token_env=options.token_env,
        inputs_are_public=options.inputs_are_public,
    )
    return DONE


def _stub(options: argparse.Namespace) -> int:
    from .adapters.stub import Stub

    stub = Stub(options.script, port=options.port, keep=False)
    try:
        stub.serve(lambda: print(f"{stub.openai_url}\n{stub.dashscope_url}\n{stub.compatible_url}", flush=True))
    except KeyboardInterrupt:
        print(", ".join(f"{name}: {count}" for name, count in sorted(stub.counts.items())) or "nothing was asked")
    return DONE


def _data(options: argparse.Namespace) -> int:
    from .jobs import datasets

    if options.verb is None:
        print(datasets.listing(), end="")
        return DONE
    print(datasets.get(options.name, options.to, note=_complain), end="")
    return DONE


def _listing(options: argparse.Namespace) -> int:
    from importlib.metadata import entry_points

    for point in sorted(entry_points(group=f"privolve.{options.command}"), key=lambda each: each.name):
        print(f"{point.name:21} {point.value}")
    return DONE


def _doctor(options: argparse.Namespace) -> int:
    from .jobs import job
    from .jobs.doctor import doctor

    return DONE if doctor(job.load(options.job) if options.job else None) else FAILED_CHECK


if __name__ == "__main__":
    sys.exit(main())
