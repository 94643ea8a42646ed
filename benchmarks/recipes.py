"""A table of recipes: each of some configurations, trained once for each seed, as CSV and Markdown.

    python benchmarks/recipes.py speedrun resnet20 --seeds=5 --data_dir=FOLDER --out=build/recipes
    python benchmarks/recipes.py --runs 'runs/sweep/*' --out=build/recipes

A recipe is the name of a file in configs/, or the path of one. Flags after -- go to every run. Runs lie in
OUT/RECIPE/seed-N; one that has a result is not trained again, so the same command after a kill goes on. Runs that are
finished already are read with --runs: those with the same settings but for the seed are one recipe. Where a run fails,
the program ends with its exit code. Memory is the most that a run's process held on the host.
"""

import argparse
import csv
import glob
import json
import os
import shlex
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
COLUMNS = ("model", "recipe", "n", "accuracy", "deviation", "interval_low", "interval_high", "averaged_accuracy",
           "images_per_second", "memory_mb", "size_mb", "seconds", "command")
# Student's t of 95 %, two-sided, for 1, 2, … degrees of freedom; beyond, the normal distribution's is near enough.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
      2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045)
_NORMAL = 1.96
_MEMORY, _AVERAGED = "recipes-memory.json", "recipes-averaged.json"


def interval(values):
    """The mean of some values, and how sure it is.

    Args:
        values: Floats, at least one.

    Returns:
        (mean, standard deviation, lower and upper end of the 95 % interval of the mean by Student's t); of a single
        value None for all but the mean.
    """
    mean = statistics.fmean(values)
    if len(values) < 2:
        return mean, None, None, None
    deviation = statistics.stdev(values)
    t = _T[len(values) - 2] if len(values) - 2 < len(_T) else _NORMAL
    half = t * deviation / len(values) ** 0.5
    return mean, deviation, mean - half, mean + half


def train(recipe, folder, flags):
    """Trains a recipe, if it isn't trained yet.

    Args:
        recipe: The path of its configuration.
        folder: The folder of the run.
        flags: More flags.
    """
    words = [sys.executable, "-m", "trainer.main", f"--flagfile={recipe}", *flags, f"--model_dir={folder}"]
    if not (folder / "result.json").exists():
        process = subprocess.Popen(words, env=os.environ, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = code = os.waitstatus_to_exitcode(status)
        if code:
            sys.exit(code if code > 0 else 128 - code)
        (folder / _MEMORY).write_text(json.dumps(usage.ru_maxrss / 1024))  # KiB on Linux


def evaluate(folder, tta):
    """Measures a finished run averaged over forms of an image, once; see `evaluate --tta`."""
    if not (folder / _AVERAGED).exists():
        words = [sys.executable, "-m", "trainer", "evaluate", f"--model_dir={folder}", f"--tta={tta}", "--json"]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            sys.exit(done.returncode)
        (folder / _AVERAGED).write_text(json.dumps(json.loads(done.stdout)["eval_accuracy"]))


def row_of(recipe, folders, command):
    """A row of the table.

    Args:
        recipe: Its name.
        folders: The finished runs of it.
        command: What trains it.

    Returns:
        A dict of `COLUMNS`; None for what isn't known.
    """
    results = [json.loads((folder / "result.json").read_text()) for folder in folders]
    given = json.loads((folders[0] / "config.json").read_text())["given"]
    tested = [result["eval_accuracy"] if result.get("test_accuracy") is None else result["test_accuracy"]
              for result in results]
    mean, deviation, low, high = interval(tested)
    speeds = [result["images_per_second"] for result in results if result["images_per_second"]]
    sizes = [export["bytes"] / 1e6 for result in results for export in result["exports"].values()]
    averaged, memory = ([json.loads((folder / name).read_text()) for folder in folders if (folder / name).exists()]
                        for name in (_AVERAGED, _MEMORY))
    return {"model": given["model"], "recipe": recipe, "n": len(results), "accuracy": mean, "deviation": deviation,
            "interval_low": low, "interval_high": high,
            "averaged_accuracy": statistics.fmean(averaged) if averaged else None,
            "images_per_second": statistics.median(speeds) if speeds else None,
            "memory_mb": max(memory) if memory else None, "size_mb": min(sizes) if sizes else None,
            "seconds": statistics.median(result["wall_seconds"] for result in results), "command": command}


def finished(patterns):
    """Finished runs, by what they have in common.

    Args:
        patterns: Of the paths of their folders.

    Yields:
        (name, folders, command) of the runs with the same settings but for the seed and the folder.
    """
    groups = {}
    for path in sorted({path for pattern in patterns for path in glob.glob(pattern)}):
        if (Path(path) / "result.json").exists():
            given = json.loads((Path(path) / "config.json").read_text())["given"]
            groups.setdefault(json.dumps({**given, "seed": 0, "model_dir": ""}, sort_keys=True), []).append(Path(path))
    for folders in groups.values():
        yield folders[0].name, folders, f"the settings in {folders[0] / 'config.json'}"


def write(rows, out):
    """Writes recipes.csv and recipes.md.

    Args:
        rows: Of `row_of`.
        out: Their folder.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / "recipes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    lines = ["| model | recipe | accuracy ± deviation (95 % interval of the mean) | averaged | images/s | memory | "
             "size | time | command |", "|---|---|---|---|---|---|---|---|---|", *(_line(row) for row in rows)]
    (out / "recipes.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _line(row):
    """A row of the table in Markdown; a dash for what isn't known."""
    def shown(name, form):
        return "–" if row[name] is None else form.format(row[name])

    spread = "" if row["deviation"] is None else (
        f" ± {row['deviation']:.2%} ({row['interval_low']:.2%} – {row['interval_high']:.2%})")
    cells = (row["model"], row["recipe"], f"{row['accuracy']:.2%}{spread}, n = {row['n']}",
             shown("averaged_accuracy", "{:.2%}"), shown("images_per_second", "{:,.0f}"),
             shown("memory_mb", "{:,.0f} MB"), shown("size_mb", "{:.2f} MB"),
             shown("seconds", "{:,.0f} s"), f"`{row['command']}`")
    return f"| {' | '.join(cell.replace('|', '∣') for cell in cells)} |"


def main():
    """Trains what isn't trained yet, and writes the table."""
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipes", nargs="*", help="names of files in configs/, or paths")
    parser.add_argument("--runs", nargs="*", default=[], help="patterns of the folders of finished runs")
    parser.add_argument("--seeds", type=int, default=5, help="number of runs of each recipe: seeds 0, 1, …")
    parser.add_argument("--data_dir", default="", help="the folder of the data")
    parser.add_argument("--tta", default="none", help="as evaluate --tta; none: no averaged accuracy")
    parser.add_argument("--out", type=Path, default=Path("build/recipes"), help="folder of the table and the runs")
    options = parser.parse_args(words[:split])
    flags, rows = words[split + 1:], []
    if options.data_dir:
        flags.append(f"--data_dir={options.data_dir}")
    for recipe in options.recipes:
        path = Path(recipe) if Path(recipe).suffix == ".cfg" else ROOT / "configs" / f"{recipe}.cfg"
        if not path.exists():
            parser.error(f"a recipe is the name of a file in configs/, or the path of one; received {recipe}")
        folders = [options.out.absolute() / path.stem / f"seed-{seed}" for seed in range(options.seeds)]
        for seed, folder in enumerate(folders):
            train(path.absolute(), folder, [*flags, f"--seed={seed}"])
            if options.tta != "none":
                evaluate(folder, options.tta)
        shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
        command = shlex.join(["python", "-m", "trainer.main", f"--flagfile={shown}", *flags])
        rows.append(row_of(path.stem, folders, command))
    rows += [row_of(*group) for group in finished(options.runs)]
    if not rows:
        parser.error("name recipes, or finished runs with --runs")
    write(rows, options.out)
    print((options.out / "recipes.md").read_text(), end="")


if __name__ == "__main__":
    main()
