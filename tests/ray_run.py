"""A cluster of two nodes on this machine, one of which is killed in the middle: ``python ray_run.py FOLDER``.

A process of its own, so that Ray's threads and sockets end with it. What it sees goes to ``FOLDER/seen.json``.
"""

import json
import socket
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from conftest import WRITTEN, make_split, tiny_backbone
from tiny_run import NETWORK, QUICK

from reprolib import BUC, DBC, OIM, cluster, jobs, model, paths, state
from reprolib.recipe import BUC_UNREGULARIZED

RECIPES = [replace(r, **QUICK) for r in (BUC, DBC, OIM, BUC_UNREGULARIZED)]


@dataclass(frozen=True)
class TinyJob(jobs.Job):
    """A job of a second wherever it is run, that saves every epoch."""

    folder: str = ""
    pause: float = 0  # seconds after each stage

    def run(self, **options):
        place(Path(self.folder))
        model.load_backbone, state.SAVE_EVERY = tiny_backbone, 0
        show = options.pop("on_stage", lambda *_: None)

        def on_stage(record, stages):
            show(record, stages)
            with (Path(self.folder) / "log").open("a") as log:
                log.write(json.dumps([self.title, len(record.stages), node()]) + "\n")
            time.sleep(self.pause)

        return super().run(**options, on_stage=on_stage)


def node() -> str:
    """Where this is run; empty outside of Ray."""
    import ray

    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""


def place(folder: Path) -> None:
    """Keep all that is written in this folder."""
    for name in WRITTEN:
        setattr(paths, name, folder / name.lower())


def tiny_jobs(folder: Path, **options) -> list[TinyJob]:
    return [TinyJob(recipe, make_split(), 0, NETWORK, folder=str(folder), **options) for recipe in RECIPES]


def ports() -> dict[str, int]:
    """Free ones: Ray waits 15 seconds for its agents to find some, which on a busy machine is not enough."""
    names = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    free = dict(zip(names, (s.getsockname()[1] for s in sockets), strict=True))
    for s in sockets:
        s.close()
    return free


def kill_at_work(nodes, doomed, log: Path, seen: dict) -> None:
    """Kill a node as soon as it has finished a stage."""
    while not seen:
        time.sleep(0.05)
        for title, stage, where in map(json.loads, log.read_text().splitlines() if log.exists() else []):
            if where == doomed.node_id:
                seen["killed"] = [title, stage]
                nodes.remove_node(doomed, allow_graceful=False)
                return


def main(folder: Path) -> None:
    import ray
    from ray.cluster_utils import Cluster

    seen = {}
    for job in tiny_jobs(folder / "serial"):
        (folder / "serial").mkdir(exist_ok=True)
        job.run()
    here = {"num_cpus": 1, "object_store_memory": cluster.OBJECT_STORE}
    nodes = Cluster(True, head_node_args=here | {"include_dashboard": False, "no_monitor": True} | ports())
    doomed = nodes.add_node(**here, **ports())
    place(folder / "ray")
    (folder / "ray").mkdir()
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    threading.Thread(target=kill_at_work, args=(nodes, doomed, folder / "ray" / "log", seen), daemon=True).start()
    records = cluster.train(tiny_jobs(folder / "ray", pause=2), results=folder / "ray")
    seen |= {"names": [r.name for r in records]}
    good, bad = tiny_jobs(folder / "ray")[:2]
    try:
        cluster.train([replace(bad, settings=NETWORK | {"identities": 13}), good], results=folder / "ray")
    except cluster.ClusterError as error:
        seen["error"] = str(error)
    ray.shutdown()
    nodes.shutdown()
    (folder / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    from ray_run import main as main_that_workers_find

    main_that_workers_find(Path(sys.argv[1]))
