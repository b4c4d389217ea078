"""Dropout and early stop on a small corpus that `fit` reads many times: the validation loss at equal updates.

    python benchmarks/small_corpora.py --text shakespeare=FILE --text tang=FILE [--bytes 60000] [--epochs 15]

Each run trains the model of `fit` on the first bytes of a text, on one thread, and prints a row of a Markdown table.
`new text` is the 200,000 bytes that follow, under the model that the run keeps. The loss does not depend on the load of
the machine.
"""

import argparse
import tempfile
from itertools import product
from pathlib import Path

from scaling_laws import rule

import tinyllm
from tinyllm import storage
from tinyllm.config import Config
from tinyllm.config.layers import to_toml
from tinyllm.corpus.documents import read_documents
from tinyllm.planning.laws import measured_laws
from tinyllm.planning.plan import Limits, Plan, choose_plan
from tinyllm.planning.reporter import FitReporter
from tinyllm.planning.speed import Speed
from tinyllm.planning.stages import Corpus, Fitted, prepare_data
from tinyllm.planning.survey import Survey, survey, try_vocabularies
from tinyllm.shards.format import ShardSet
from tinyllm.training.builder import build_trainer
from tinyllm.training.checkpoint import TrainingState
from tinyllm.training.objective import Evaluation
from tinyllm.training.patience import count_evaluation, is_out_of_patience
from tinyllm.training.reporter import TrainingReporter

NEW_BYTES = 200_000
FAST = Speed(0.0, 1e12)
"""A machine on which the corpus, not the time, limits the model."""
NUM_EVALUATIONS, PATIENCE = 12, 4
COLUMNS = ("corpus", "model", "epochs", "dropout", "best", "at step", "last", "new text", "early stop at")


def cut(text: Path, num_bytes: int, folder: Path) -> tuple[Path, Path]:
    """Files with the first `num_bytes` of a text, and with the bytes after them."""
    content = text.read_bytes()
    parts = content[:num_bytes], content[num_bytes : num_bytes + NEW_BYTES]
    files = folder / "first.txt", folder / "new.txt"
    for file, part in zip(files, parts, strict=True):
        storage.write_file(file, part.decode(errors="ignore"))
    return files


def plan_model(facts: Survey, lines: list[str]) -> Plan:
    """The plan of `fit` for a corpus of such a size."""
    return choose_plan(facts, try_vocabularies(lines), FAST, measured_laws(), Limits(3600.0))


def configure(plan: Plan, dropout: float) -> Config:
    """The run of a plan with another dropout, without an early stop."""
    sections = plan.config(attention="fused", dtype="float32", compile="off").model_dump()
    sections["model"]["dropout"] = dropout
    interval = -(-plan.num_steps // NUM_EVALUATIONS)
    sections["training"] |= {"eval_interval": interval, "checkpoint_interval": 10**6, "eval_batches": 100}
    sections["training"] |= {"num_threads": 1, "patience": 0}
    return Config.model_validate(sections)


def train(config: Config, shards: ShardSet, new: Path) -> tuple[list[tuple[int, float]], float]:
    """Steps and bits per byte of the evaluations, and bits per byte of the file `new` under the model that is kept."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        build_trainer(config, shards, run, reporter=TrainingReporter()).train(resume=False, to_toml=to_toml)
        records = storage.read_json_lines(run / "metrics.jsonl")
        report = tinyllm.evaluate(run / "model", text=new, pairs=False, num_samples=0)
        (figures,) = report.models[0].texts.values()
    return [(r["step"], r["bits_per_byte"]) for r in records if r.get("bits_per_byte") and r["step"]], (
        figures.bits_per_byte
    )


def early_end(evaluations: list[tuple[int, float]]) -> str:
    """The step at which `PATIENCE` ends the run, and the lowest loss up to it."""
    state = TrainingState()
    for step, bits in evaluations:
        count_evaluation(state, Evaluation(bits))
        if is_out_of_patience(state, PATIENCE):
            return f"{step}: {state.lowest_loss:.3f}"
    return "no"


def main() -> None:
    arguments = parse_arguments()
    print(f"| {' | '.join(COLUMNS)} |\n| {' | '.join(['---', '---', *['---:'] * (len(COLUMNS) - 2)])} |")
    for name, text in (item.split("=", 1) for item in arguments.text):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            first, new = cut(Path(text), arguments.bytes, folder)
            facts, lines = survey(read_documents([first], documents=rule(name)))
            plan = plan_model(facts, lines)
            corpus, fitted = Corpus([first], rule(name)), Fitted(plan, facts, {})
            shards = prepare_data(folder / "data", fitted, corpus, None, FitReporter())
            for epochs, dropout in product(arguments.epochs or (8, 15, 30, 60), (0.0, 0.1, 0.2)):
                num_steps = int(epochs * plan.corpus_tokens / (plan.batch_size * plan.model.context_length))
                config = configure(plan.with_steps(num_steps, facts, measured_laws()), dropout)
                evaluations, bits = train(config, shards, new)
                step, best = min(evaluations, key=lambda evaluation: evaluation[1])
                shape = f"V {plan.vocabulary.size:,}, {plan.model.hidden_size} x {plan.model.num_layers}"
                cells = [name, shape, epochs, dropout, f"{best:.3f}", f"{step} of {num_steps}"]
                cells += [f"{evaluations[-1][1]:.3f}", f"{bits:.3f}", early_end(evaluations)]
                print(f"| {' | '.join(map(str, cells))} |", flush=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", action="append", required=True, help="NAME=FILE: a corpus.")
    parser.add_argument("--bytes", type=int, default=60_000, help="Size of the part that is trained on.")
    parser.add_argument("--epochs", type=int, action="append", help="Passes over it; default 8, 15, 30 and 60.")
    return parser.parse_args()


if __name__ == "__main__":
    main()
