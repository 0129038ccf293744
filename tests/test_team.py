"""Two processes on a CPU train what one does: the same losses, the same table, one record."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import WRITTEN, make_split, tiny_backbone
from tiny_run import NETWORK, QUICK, processes, the_record

import reprolib
from reprolib import BUC, BUC_RELEASED, LookupTable, algorithm, model, paths, training
from reprolib.images import load_images
from reprolib.model import Model
from reprolib.team import ALONE, Team, team

CPU = torch.device("cpu")
PATIENCE = 300  # seconds that a process may take; it takes a few, on a core of its own


def together(work, folder, *arguments, size=2):
    """Call ``work(folder, *arguments)`` in so many processes, with the environment that torchrun gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    everyone = {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    folder.mkdir(exist_ok=True)
    started = [
        processes.Process(target=_member, args=(everyone | {"RANK": r, "LOCAL_RANK": r}, work, folder, arguments))
        for r in range(size)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(PATIENCE)
        assert process.exitcode == 0, [log.read_text() for log in folder.glob("log*")]


def _member(environment, work, folder, arguments):
    os.environ |= {name: str(value) for name, value in environment.items()}
    sys.stdout = sys.stderr = (folder / f"log{environment['RANK']}").open("a", buffering=1)
    torch.set_num_threads(1)
    model.load_backbone = tiny_backbone
    work(folder, *arguments)


def train(recipe, frames, together=ALONE, precision="float32"):
    """Two epochs from the same weights; losses, table and the model's weights."""
    recipe = replace(recipe, embedding_dim=32)
    split, table = make_split(frames=frames), LookupTable(20, 32, normalize=recipe.normalize_table)
    torch.manual_seed(0)
    network = Model(recipe, backbone="resnet18", weights="none", freeze_stem=frames > 1)
    losses = training.train_stage(
        network, load_images(split.train.frames, (32, 16)), split.train.starts, torch.arange(48) % 20, table,
        recipe=recipe, image_size=(32, 16), learning_rates=[0.1, 0.01], seed=0, device=CPU,
        precision=precision, team=together,
    )  # fmt: skip
    return losses, table.weight, network.state_dict()


def train_together(folder, recipe, frames, precision="float32"):
    with team(CPU) as members:
        torch.save(train(recipe, frames, members, precision), folder / f"{members.rank}.pt")


@pytest.mark.parametrize(("recipe", "frames"), [(BUC, 1), (BUC_RELEASED, 3)], ids=["images", "tracklets"])
@pytest.mark.usefixtures("tiny_network")
def test_two_processes_train_what_one_does(tmp_path, recipe, frames):
    together(train_together, tmp_path / "team", recipe, frames)
    alone = train(recipe, frames)
    for rank in (0, 1):
        losses, table, weights = torch.load(tmp_path / "team" / f"{rank}.pt")
        np.testing.assert_allclose(losses, alone[0], rtol=1e-4)
        torch.testing.assert_close(table, alone[1], atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(weights, alone[2], atol=1e-3, rtol=1e-3)


@pytest.mark.usefixtures("tiny_network")
def test_two_processes_train_what_one_does_in_bf16_too(tmp_path):
    together(train_together, tmp_path / "team", BUC, 1, "bf16")
    alone = train(BUC, 1, precision="bf16")
    losses, table, weights = torch.load(tmp_path / "team" / "0.pt")
    np.testing.assert_allclose(losses, alone[0], rtol=0.02)
    assert table.dtype == torch.float32
    assert {v.dtype for v in weights.values() if v.is_floating_point()} == {torch.float32}


def run_here(folder):
    for name in WRITTEN:
        setattr(paths, name, folder / name.lower())
    return reprolib.run(replace(BUC, **QUICK), make_split(), **NETWORK)


def run_and_tell(folder):
    record = run_here(folder)
    (folder / f"{os.environ['RANK']}.txt").write_text(f"{record.name} {record.best['rank-1']}")


def test_two_processes_go_on_with_a_run_of_one_and_write_one_record(
    results_folder, tiny_network, monkeypatch, tmp_path
):
    whole = run_here(tmp_path / "alone")
    folder = tmp_path / "team"
    with monkeypatch.context() as patch:
        stage = algorithm.Algorithm._stage
        patch.setattr(algorithm.Algorithm, "_stage", lambda self, k: stage(self, k) if k == 0 else sys.exit())
        with pytest.raises(SystemExit):
            run_here(folder)
    together(run_and_tell, folder)
    record = the_record(folder)
    assert record.provenance["processes"] == 2
    assert [s["num_clusters"] for s in record.stages] == [s["num_clusters"] for s in whole.stages]
    for ours, alone in zip(record.stages, whole.stages, strict=True):
        np.testing.assert_allclose(ours["losses"], alone["losses"], rtol=1e-2)
    told = f"{record.name} {record.best['rank-1']}"
    assert [(folder / f"{rank}.txt").read_text() for rank in (0, 1)] == [told] * 2
    assert "epoch" in (folder / "log0").read_text()
    assert "epoch" not in (folder / "log1").read_text()


def test_a_batch_that_the_processes_cannot_share_is_refused(tiny_network):
    with pytest.raises(ValueError, match="batch_size=16 cannot be divided among 3 processes; start fewer"):
        train(BUC, 1, Team(0, 3))


def test_a_process_alone_starts_no_group():
    with team(CPU) as alone:
        assert alone == ALONE
        assert not torch.distributed.is_initialized()
    rows = torch.rand(4, 3)
    assert torch.equal(alone.own(rows), rows)
    assert alone.gather(rows) is rows
    assert alone.tell("so") == "so"


def test_torchrun_trains_several_runs_in_one_call(tmp_path):
    script = Path(__file__).parent / "torchrun_run.py"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launcher, str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr[-3000:]
    assert sorted(file.name.split("_")[1] for file in (tmp_path / "runs").glob("*.json")) == ["buc", "oim"]
