"""What has been tracked, read back by each tracker's own means; a real MLflow server."""

import dataclasses
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.request

from conftest import environment
from runs import finish

from trainer.reporting import jsonl

FLAGS = ("--dataset=small_data:few", "--model=small_models:regularized", "--batch_size=12", "--epochs=100",
         "--eval_every_epochs=0.5", "--export=none")
_NOT_METRICS = ("time", "step", "epoch", "split")


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start_server(folder, port):
    """An MLflow server on a database in a folder, once it answers."""
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1",
         f"--backend-store-uri=sqlite:///{folder}/mlflow.db", f"--artifacts-destination={folder}/artifacts"],
        env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"), cwd=folder, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5)
            return process
        except OSError:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.2)


def stop_server(process):
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@dataclasses.dataclass
class Place:
    """A folder with a run, and where its trackers write."""

    folder: object
    variables: dict

    def start(self, *flags):
        command = [sys.executable, "-m", "trainer.main", *FLAGS, "--model_dir=run", *flags]
        return subprocess.Popen(command, cwd=self.folder, env=environment(**self.variables), text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def run(self, *flags, code=0):
        return finish(self.start(*flags), code)

    def record(self, name):
        return json.loads((self.folder / f"run/trackers/{name}.json").read_text())

    def measured(self):
        """Step to metrics, as metrics.jsonl has them."""
        points = {}
        for line in jsonl.read(self.folder / "run/metrics.jsonl"):
            points.setdefault(line["step"], {"epoch": line["epoch"]}).update(
                {f"{line['split']}/{name}": value for name, value in line.items()
                 if name not in _NOT_METRICS and value is not None})
        return points


def in_mlflow(uri, run_id):
    """(rows of step and metrics in their order, the run)."""
    import mlflow

    client = mlflow.MlflowClient(uri)
    found = client.get_run(run_id)
    rows = [(metric.step, metric.key, metric.value) for name in found.data.metrics
            for metric in client.get_metric_history(run_id, name)]
    return rows, found


def in_wandb(folder, kind):
    """The records of a kind in all offline runs of a folder, by the time of their starts.

    A file is a log in LevelDB's format, of messages of wandb's own type.
    """
    from wandb.proto import wandb_internal_pb2

    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        content = path.read_bytes()
        assert content[:4] == b":W&B"
        at, message = 7, b""
        while at + 7 <= len(content):
            if (left := 32768 - at % 32768) < 7:
                at += left
                continue
            _, size, part = struct.unpack("<IHB", content[at:at + 7])
            message += content[at + 7:at + 7 + size]
            at += 7 + size
            if part in (1, 4):  # a whole one, the last part of one
                record = wandb_internal_pb2.Record.FromString(message)
                message = b""
                if record.WhichOneof("record_type") == kind:
                    yield path, getattr(record, kind)


def rows_of_wandb(folder):
    """[(step, name, value)] in the order of the files."""
    own = ("_step", "_runtime", "_timestamp")
    for _, history in in_wandb(folder, "history"):
        for item in history.item:
            name = item.key or "/".join(item.nested_key)
            if name not in own:
                yield history.step.num, name, json.loads(item.value_json)


def rows_of_trackio(folder, name):
    """[(step, name, value)], by trackio's own reader."""
    code = ("import json, sys, trackio.sqlite_storage as storage; "
            "print(json.dumps(storage.SQLiteStorage.get_logs('lockstep', sys.argv[1])))")
    done = subprocess.run([sys.executable, "-c", code, name], text=True, capture_output=True,
                          env=environment(TRACKIO_DIR=str(folder / "trackio")))
    assert done.returncode == 0, done.stderr
    return [(line["step"], key, value) for line in json.loads(done.stdout.splitlines()[-1])
            for key, value in line.items() if key not in ("step", "timestamp")]
