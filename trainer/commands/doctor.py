"""`doctor`: what this machine can run, or all that is wrong with a data set."""

import dataclasses

from trainer.config import Config
from trainer.options import Checked, option
from trainer.rules.combinations import needs_data_dir


@dataclasses.dataclass(frozen=True)
class Options(Checked):
    """python -m trainer doctor: disk, limits, libraries, devices; with --data: every image of a data set."""

    data: bool = option(False, "read all of the data set and list everything that is wrong with it, and what is odd: "
                        "copies, leaks between splits, images that show little")
    dataset: str = Config.__dataclass_fields__["dataset"]
    data_dir: str = Config.__dataclass_fields__["data_dir"]
    validation_fraction: float | None = Config.__dataclass_fields__["validation_fraction"]
    model_dir: str = option("", "folder of a run: its disk is tried; with --data its data and predictions are used, "
                            "to find labels that are likely wrong, too")
    images: int = option(0, "with --data: how many images to read, evenly spread over the data; 0: all", least=0)
    out: str = option("", "with --data: file for a page that shows what was found; a run's is in its report/ otherwise")
    bug_report: bool = option(False, "print a form to paste into a bug report, with what was found, the variables that "
                              "change how TensorFlow works, and settings and log of the run --model_dir")
    json: bool = option(False, "with --data: print a JSON object with all that was found")
    num_gpus: int = Config.__dataclass_fields__["num_gpus"]
    virtual_devices: int = Config.__dataclass_fields__["virtual_devices"]
    xla: str = Config.__dataclass_fields__["xla"]
    self_test: str = option("", "run only this test, in this process", choices=("", "all_reduce", "compile"))

    def problems(self) -> list[str]:
        """All that is wrong with the values, as `Checked.problems` describes it."""
        alone = [name for name in ("images", "out", "json") if getattr(self, name) and not self.data]
        return [*super().problems(), *([] if self.model_dir else needs_data_dir(self.dataset, self.data_dir)),
                *(f"--{name} needs --data" for name in alone),
                *(["--bug_report is about the machine: leave --data out"] if self.data and self.bug_report else [])]


def run(options: Options) -> None:
    """Prints the devices and the results of their tests, or the problems of a data set.

    Raises:
        DataError: with everything that is wrong with the data; or if it isn't the data of the run.
        DeviceError: if the devices can't work, or can't work together.
        StorageError: if no run could write its files.
        UsageError: if the data can't be that of the run.
    """
    if options.data:
        from trainer.commands.data_check.check import check_data

        check_data(options)
    elif options.self_test:
        from trainer.commands.machine_check.check import started
        from trainer.distributed.devices import self_tests

        self_tests.TESTS[options.self_test](started(options))
    else:
        from trainer.commands.machine_check.check import check_machine

        check_machine(options)
