"""`python -m launch.ssh --hosts=a,b -- FLAGS`: a worker on each of several machines, over ssh."""

import dataclasses
import ipaddress
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from launch import cli
from launch.workers.supervisor import WorkerSpec, supervise
from trainer.errors import UsageError
from trainer.options import Checked, option
from trainer.process.exit import run_as_process, run_to_exit_code


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m launch.ssh --hosts=a,b -- TRAINER'S FLAGS: a worker on each host, watched and started again.

    Every host has this package, the same folders, and one model_dir that all hosts see.
    """

    hosts: tuple[str, ...] = option((), "a comma list of [user@]host, the chief's first; as the others reach them")
    python: str = option(sys.executable, "the interpreter on the hosts")
    folder: str = option("", "where to start the workers; default: this folder's path")
    port: int = option(0, "the workers' port, for firewalls; 0: any that is free", least=0, most=65535)
    ssh: str = option("", "more of ssh's own options, such as '-p 2222 -i KEY'")
    max_restarts: int = option(3, "start all workers again this often after a lost worker or device", least=0)
    hang_timeout: float | None = option(None, "the trainer's --hang_timeout", above=0)

    def problems(self) -> list[str]:
        """All that is wrong with the values; checks the folder and the hosts in addition to `Checked.problems`."""
        problems = super().problems() + ([] if self.hosts else ["--hosts is needed"])
        if self.folder and not self.folder.startswith("/"):
            problems.append(f"--folder must be an absolute path; received {self.folder!r}")
        return problems + [f"--hosts names {host!r}, which is not a host; a port stands in --ssh='-p PORT'"
                           for host in self.hosts if host.startswith("-") or not _is_host(_bare(host))]


def _bare(host: str) -> str:
    """The host of [user@]host, without the brackets that an IPv6 address may stand in: ssh takes none."""
    return host.rpartition("@")[2].strip("[]")


def _is_host(host: str) -> bool:
    """Whether a text may be a name or an address: with colons it must be an IPv6 address."""
    try:
        return bool(host) and (":" not in host or bool(ipaddress.IPv6Address(host)))
    except ValueError:
        return False


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a job as the command line says.

    Args:
        argv: The arguments after the program's name; None for the process's own.

    Returns:
        The exit code; see trainer/errors.py.
    """
    return run_to_exit_code(_run, sys.argv[1:] if argv is None else argv)


def _run(argv: Sequence[str]) -> None:
    options, arguments, config = cli.parse(Options, argv)
    cli.require(cli.misfits(config, len(options.hosts), None, "hosts")[1])
    try:
        ssh_options = shlex.split(options.ssh)
    except ValueError as error:
        raise UsageError(f"--ssh can't be read: {error}; received {options.ssh!r}") from None
    specs = [_worker_spec(host, options, ssh_options) for host in options.hosts]
    supervise(specs, cli.with_hang_timeout(arguments, options.hang_timeout), config, options.max_restarts)


def _worker_spec(host: str, options: Options, ssh_options: Sequence[str]) -> WorkerSpec:
    folder = options.folder or str(Path.cwd())
    import_path = os.environ.get("PYTHONPATH")
    variables = [f"PYTHONPATH={import_path}"] if import_path else []
    agent = shlex.join(["env", *variables, options.python, "-m", "launch.workers.agent"])
    remote = f"cd {shlex.quote(folder)} && exec {agent}"
    user, at, _ = host.rpartition("@")
    # No questions, and no waiting for a machine that is gone: ssh gives up after 15 s without an answer.
    ssh = ("ssh", "-T", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20", "-o", "ServerAliveInterval=5", "-o",
           "ServerAliveCountMax=3", *ssh_options, user + at + _bare(host), remote)
    return WorkerSpec(_bare(host), host, ssh, port=options.port, here=False)


if __name__ == "__main__":
    run_as_process(main)
