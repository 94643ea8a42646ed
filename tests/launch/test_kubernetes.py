"""The printed manifests: against Kubernetes' own schemas, and against the parts of the project that they must fit."""

import dataclasses
import itertools
import re
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml
from conftest import ROOT, environment

from launch import kubernetes, kubernetes_objects
from launch.restart_policy import starts_again
from trainer import errors, flags
from trainer.config import Config
from trainer.distributed.cluster import read_cluster

OWN = ("--name=digits", "--image=registry/lockstep:1", "--claim=runs")
TRAINER = ("--", "--model_dir=/data/runs/digits", "--batch_size=128")
# The first whose Jobs count by index, and the newest that the package knows.
VERSIONS = ("1.29", kubernetes_validate.latest_version())
EVERY = list(itertools.product(("job", "jobset"), (0, 2), (1, 2, 16)))


def printed(capsys, *words):
    """The objects that a command line prints."""
    code = kubernetes.main([*OWN, *words] if "--" in words else [*OWN, *words, *TRAINER])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return {found["kind"]: found for found in yaml.safe_load_all(out)}


def job_of(objects):
    """The Job that is printed, or that a JobSet makes."""
    if "Job" in objects:
        return objects["Job"]
    (replicated,) = objects["JobSet"]["spec"]["replicatedJobs"]
    name = f"{objects['JobSet']['metadata']['name']}-{replicated['name']}-0"
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {**replicated["template"]["metadata"], "name": name},
            "spec": replicated["template"]["spec"]}


def container_of(objects):
    (container,) = job_of(objects)["spec"]["template"]["spec"]["containers"]
    return container


def replace_variables(text, values):
    """$(NAME) and $$ as Kubernetes replaces them; what isn't known stays."""
    return re.sub(r"\$\$|\$\(([^)]*)\)",
                  lambda found: "$" if found[0] == "$$" else values.get(found[1], found[0]), text)


def variables_of(objects, worker):
    """The environment of a worker's container: each variable sees those before it."""
    values = {}
    for variable in container_of(objects)["env"]:
        source = variable.get("valueFrom")
        if source and "secretKeyRef" in source:
            assert variable["name"] == "LOCKSTEP_TOKEN"
            assert source == {"secretKeyRef": {"name": "digits", "key": "token"}}
            continue
        assert not source or source == {"fieldRef": {
            "fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}}
        values[variable["name"]] = str(worker) if source else replace_variables(variable["value"], values)
    return values


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("flavor, gpus, workers", EVERY)
def test_what_is_printed_is_what_kubernetes_takes(capsys, flavor, gpus, workers, version):
    objects = printed(capsys, f"--flavor={flavor}", f"--gpus_per_worker={gpus}", f"--num_workers={workers}",
                      "--namespace=team", "--data_claim=images", "--", "--model_dir=/data/x", "--data_dir=/dataset/a")
    kinds = ["NetworkPolicy", *(["Secret"] if workers > 1 else [])]
    kinds += ["JobSet"] if flavor == "jobset" else [*(["Service"] if workers > 1 else []), "Job"]
    assert list(objects) == kinds
    for found in [*objects.values(), job_of(objects)]:
        if found["kind"] != "JobSet":
            kubernetes_validate.validate(found, version, strict=True)
    assert {found["metadata"]["namespace"] for found in objects.values()} == {"team"}
    assert {found["metadata"]["name"] for found in objects.values()} == {"digits"}


def test_each_printing_has_a_secret_of_its_own(capsys):
    first, second = (printed(capsys, "--num_workers=2")["Secret"]["stringData"]["token"] for _ in range(2))
    assert len(first) == 64 and first != second


def test_the_schemas_would_tell(capsys):
    for version in VERSIONS:
        for change in ({"backofLimit": 1}, {"completions": "two"}, {"podFailurePolicy": {"rules": [{"do": 1}]}}):
            job = printed(capsys)["Job"]
            with pytest.raises(kubernetes_validate.ValidationError):
                kubernetes_validate.validate({**job, "spec": {**job["spec"], **change}}, version, strict=True)


def test_a_jobset_starts_all_again_together_and_not_after_what_comes_again(capsys):
    found = printed(capsys, "--flavor=jobset", "--max_restarts=5")["JobSet"]
    assert found["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    assert found["spec"]["failurePolicy"] == {"maxRestarts": 5, "rules": [
        {"name": "notAgain", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}]}
    assert found["spec"]["network"] == {"enableDNSHostnames": True, "subdomain": "digits",
                                        "publishNotReadyAddresses": True}
    (replicated,) = found["spec"]["replicatedJobs"]
    assert (replicated["name"], replicated["replicas"]) == ("workers", 1)
    spec = replicated["template"]["spec"]
    assert spec["backoffLimitPerIndex"] == spec["maxFailedIndexes"] == 0


@pytest.mark.parametrize("flavor, gpus, workers", EVERY)
def test_a_job_is_an_index_for_each_worker(capsys, flavor, gpus, workers):
    objects = printed(capsys, f"--flavor={flavor}", f"--gpus_per_worker={gpus}", f"--num_workers={workers}",
                      "--max_restarts=4")
    spec = job_of(objects)["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", workers, workers)
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (4 if flavor == "job" else 0, 0)
    assert "backoffLimit" not in spec and spec["template"]["spec"]["restartPolicy"] == "Never"
    resources = container_of(objects)["resources"]
    assert resources["limits"] == resources["requests"]
    assert resources["limits"] == {"cpu": "4", "memory": "8Gi", **({"nvidia.com/gpu": gpus} if gpus else {})}
    assert f"--num_gpus={gpus}" in container_of(objects)["args"]


def action_for(policy, code, disrupted=False):
    """What Kubernetes does about a pod: the first rule that fits, and counting it if none does."""
    for rule in policy["rules"]:
        if rule.get("onPodConditions") == [{"type": "DisruptionTarget", "status": "True"}]:
            if disrupted:
                return rule["action"]
            continue
        codes = rule["onExitCodes"]
        assert codes["operator"] in ("In", "NotIn") and codes["containerName"] == "trainer"
        if (code in codes["values"]) == (codes["operator"] == "In"):
            return rule["action"]
    return "Count"


def test_who_starts_again_is_what_rules_says(capsys):
    spec = job_of(printed(capsys))["spec"]
    policy = spec["podFailurePolicy"]
    codes = {kind.code for kind in errors.LockstepError.__subclasses__()}
    assert codes == {64, 65, 69, 70, 73, 74, 75, 76}  # the table of the README
    for code in {*codes, 1, 2, 126, 127, *range(129, 192)}:
        assert (action_for(policy, code) != "FailJob") == starts_again(code), code
    # By who is to blame: nobody for a wish to stop, and neither for what the cluster takes away.
    assert [action_for(policy, code) for code in (75, 69, 70, 137, 143)] == ["Ignore", *["Count"] * 4]
    assert all(action_for(policy, code, disrupted=True) == "Ignore" for code in range(1, 256))
    # The container runtime's codes are none of the trainer's.
    assert [action_for(policy, code) for code in (128, 255)] == ["Count", "Count"]
    # What schemas don't say: rules and values have limits, codes are in order, and 0 is no failure.
    assert len(policy["rules"]) <= 20
    for values in [rule["onExitCodes"]["values"] for rule in policy["rules"] if "onExitCodes" in rule]:
        assert values == sorted(set(values)) and values[0] > 0 and len(values) <= 255


@pytest.mark.parametrize("flavor, gpus, workers", EVERY)
def test_workers_find_their_place(capsys, monkeypatch, flavor, gpus, workers):
    objects = printed(capsys, f"--flavor={flavor}", f"--gpus_per_worker={gpus}", f"--num_workers={workers}",
                      "--port=3333")
    pod = job_of(objects)["spec"]["template"]["spec"]
    host = "digits-{}.digits:3333" if flavor == "job" else "digits-workers-0-{}.digits:3333"
    for worker in range(workers):
        monkeypatch.delenv("TF_CONFIG", raising=False)
        for name, value in variables_of(objects, worker).items():
            monkeypatch.setenv(name, value)
        cluster = read_cluster("auto")
        if workers == 1:
            assert not cluster.distributed
            continue
        assert (cluster.worker, cluster.workers, cluster.distributed) == (worker, workers, True)
        assert cluster.addresses == tuple(host.format(number) for number in range(workers))
    if workers > 1 and flavor == "job":
        service = objects["Service"]["spec"]
        assert pod["subdomain"] == objects["Service"]["metadata"]["name"] == "digits"
        assert service["clusterIP"] == "None" and service["publishNotReadyAddresses"] is True
        assert service["ports"][0]["port"] == 3333
        assert service["selector"].items() <= job_of(objects)["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("flavor, gpus, workers", EVERY)
def test_only_pods_of_the_job_reach_its_workers(capsys, flavor, gpus, workers):
    objects = printed(capsys, f"--flavor={flavor}", f"--gpus_per_worker={gpus}", f"--num_workers={workers}")
    policy, pods = objects["NetworkPolicy"]["spec"], job_of(objects)["spec"]["template"]["metadata"]["labels"]
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["podSelector"] == {"matchLabels": pods} and pods["app.kubernetes.io/instance"] == "digits"
    if workers == 1:
        assert policy["ingress"] == []
        return
    (rule,) = policy["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": pods}}]
    assert rule.get("ports") == (None if gpus else [{"protocol": "TCP", "port": 2222}])


@pytest.mark.parametrize("flavor, gpus, workers", EVERY)
def test_pods_have_no_rights_that_they_dont_need(capsys, flavor, gpus, workers):
    """What the Pod Security Standard "restricted" asks for, and a root file system that can't be written."""
    objects = printed(capsys, f"--flavor={flavor}", f"--gpus_per_worker={gpus}", f"--num_workers={workers}",
                      "--data_claim=images", "--", "--model_dir=/data/x", "--data_dir=/dataset")
    pod = job_of(objects)["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False and not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert {name: pod["securityContext"][name] for name in ("runAsNonRoot", "runAsUser", "runAsGroup", "fsGroup")} == {
        "runAsNonRoot": True, "runAsUser": 10001, "runAsGroup": 10001, "fsGroup": 10001}
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"initContainers", "ephemeralContainers"} & pod.keys()
    for container in pod["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                                "capabilities": {"drop": ["ALL"]}}
    volumes = {volume.pop("name"): volume for volume in pod["volumes"]}
    places = {mount["mountPath"]: (volumes[mount["name"]], mount.get("readOnly", False))
              for mount in container_of(objects)["volumeMounts"]}
    shm = {"emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}}
    assert places == {"/data": ({"persistentVolumeClaim": {"claimName": "runs"}}, False),
                      "/dataset": ({"persistentVolumeClaim": {"claimName": "images", "readOnly": True}}, True),
                      "/tmp": ({"emptyDir": {}}, False), **({"/dev/shm": (shm, False)} if gpus else {})}
    variables = variables_of(objects, 0)
    assert variables["HOME"] == "/tmp"
    # On the claim, so that the next pod finds the kernels that the driver compiled.
    assert variables.get("CUDA_CACHE_PATH") == ("/data/.cuda-cache" if gpus else None)


def test_the_image_has_the_user_of_the_pods_and_nothing_but_the_package():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    user = kubernetes_objects.UID
    assert lines[-2:] == [f"USER {user}:{user}", 'ENTRYPOINT ["python", "-m", "trainer.main"]']
    kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert kept[0] == "*"
    assert {line[1:] for line in kept if line.startswith("!")} == {
        "setup.py", "pyproject.toml", "README.md", "LICENSE", "trainer", "launch"}


def test_the_pods_get_the_flags_that_were_checked(capsys, tmp_path):
    (tmp_path / "a.cfg").write_text("--model=cnn2\n--augment=flip,crop\n--ledger\n--learning_rate=0.0123\n")
    words = [f"--flagfile={tmp_path}/a.cfg", "--max_steps", "7", "--model_dir=/data/$(HOME)/$$x 1e3 'é\": #",
             "--data_dir=0777"]
    args = [replace_variables(word, {"HOME": "wrong"}) for word in container_of(printed(capsys, "--", *words))["args"]]
    assert not any("flagfile" in word for word in args)
    assert flags.parse(Config, args) == dataclasses.replace(flags.parse(Config, words), num_gpus=0)


@pytest.mark.parametrize("cpus, said, threads", [("0.5", "500m", "1"), ("2", "2", "2"), ("3.25", "3250m", "4")])
def test_cpus_are_said_as_kubernetes_reads_them(capsys, cpus, said, threads):
    objects = printed(capsys, f"--cpus={cpus}")
    assert container_of(objects)["resources"]["limits"]["cpu"] == said
    assert variables_of(objects, 0)["TF_NUM_INTRAOP_THREADS"] == threads


@pytest.mark.parametrize("name", ["y", "no", "null", "e1"])
def test_names_that_yaml_takes_for_something_else_stay_names(capsys, name):
    code = kubernetes.main([*OWN, f"--name={name}", "--namespace=1e3", *TRAINER])
    out = capsys.readouterr().out
    assert code == 0 and 'namespace: "1e3"' in out  # kubectl's YAML reads 1e3 as a number, PyYAML's doesn't
    assert f"name: {name}\n" not in out or name == "e1"
    assert {found["metadata"]["name"] for found in yaml.safe_load_all(out)} == {name}


def wrong(capsys, *words):
    code = kubernetes.main(list(words))
    out, err = capsys.readouterr()
    assert (code, out) == (64, "") and "fix: " in err
    return err


@pytest.mark.parametrize("words, part", [
    (["--name=Digits"], "--name must be small letters"), (["--name=9a"], "--name must be small letters"),
    (["--name=a-"], "--name must be small letters"), (["--name=a.b"], "--name must be small letters"),
    (["--name=" + "a" * 56], "received 'aaaaaaaa"), (["--namespace=a.b"], "--namespace must be"),
    (["--image=a b"], "--image must be"), (["--image="], "--image is needed"), (["--claim="], "--claim is needed"),
    (["--claim=a_b"], "--claim must be"), (["--memory=8"], "--memory must be"),
    (["--memory=٣Gi"], "--memory must be"), (["--cpus=0"], "at least 0.1"),
    (["--port=80"], "at least 1024"), (["--num_workers=0"], "at least 1"), (["--flavor=pod"], "job or jobset"),
    (["--mount=data"], "--mount must be a folder"), (["--mount=/"], "--mount must be a folder"),
    (["--mount=/tmp/x"], "--mount must be a folder"), (["--mount=/a/../tmp"], "--mount must be a folder"),
    (["--data_claim=d", "--data_mount=/data/x"], "must lie apart"),
    (["--gpus_per_pod=1"], "did you mean --gpus_per_worker?")])
def test_wrong_flags_of_the_launcher(capsys, words, part):
    assert part in wrong(capsys, *OWN, *words, *TRAINER)


@pytest.mark.parametrize("own, words, part", [
    ([], [], "say --model_dir=/data/digits"), ([], ["--model_dir=/data"], "must be a folder below /data"),
    ([], ["--model_dir=/database/x"], "must be a folder below /data"),
    ([], ["--model_dir=/data/../etc"], "must be a folder below /data"),
    (["--mount=/runs"], ["--model_dir=/data/x"], "say --model_dir=/runs/digits"),
    ([], ["--model_dir=/data/x", "--num_gpus=1"], "--gpus_per_worker, 0; received 1; leave --num_gpus out"),
    (["--gpus_per_worker=2"], ["--model_dir=/data/x", "--num_gpus=0"], "--gpus_per_worker, 2; received 0"),
    (["--data_claim=d"], ["--model_dir=/data/x"], "say --data_dir=/dataset"),
    (["--num_workers=3"], ["--model_dir=/data/x"], "the number of replicas, 3; received 128"),
    (["--num_workers=1", "--gpus_per_worker=3"], ["--model_dir=/data/x"], "the number of replicas, 3; received 128"),
    ([], ["--model_dir=/data/x", "--strategy=mirrored"], "leave --strategy out"),
    (["--num_workers=1"], ["--model_dir=/data/x", "--strategy=multi_worker"], "--num_workers of at least 2"),
    ([], ["--model_dir=/data/x", "--virtual_devices=2"], "received --virtual_devices=2; leave it out"),
    ([], ["--model_dir=/data/x", "--epochs=0"], "--epochs must be above 0")])
def test_what_doesnt_fit_together(capsys, own, words, part):
    assert part in wrong(capsys, *OWN, *own, "--", *words)


def test_all_that_is_wrong_is_said_at_once_by_a_process(run):
    ended = run("launch.kubernetes", "--name=A", "--", "--epochs=0")
    assert (ended.code, ended.out) == (64, "") and "Traceback" not in ended.err
    for part in ("--name must be", "--image is needed", "--claim is needed", "--epochs must be above 0",
                 "fix: correct the above; the launcher's flags stand before --"):
        assert part in ended.err


def test_a_process_prints_what_kubectl_reads(run):
    ended = run("launch.kubernetes", *OWN, *TRAINER)
    assert (ended.code, ended.err) == (0, "")
    assert [found["kind"] for found in yaml.safe_load_all(ended.out)] == ["NetworkPolicy", "Secret", "Service", "Job"]
    helped = run("launch.kubernetes", "--help")
    assert helped.code == 0 and all(f"--{field.name}" in helped.out
                                    for field in dataclasses.fields(kubernetes.Options))


def test_without_pyyaml_the_way_out_is_the_extra(tmp_path):
    code = ("import sys; sys.modules['yaml'] = None  # as if it weren't installed\n"
            "from launch import kubernetes\nfrom trainer.process.exit import run_as_process\n"
            "run_as_process(kubernetes.main)")
    done = subprocess.run([sys.executable, "-c", code, *OWN, *TRAINER], cwd=tmp_path, capture_output=True, text=True,
                          env=environment(), timeout=60)
    assert (done.returncode, done.stdout) == (64, "")
    assert "fix: pip install 'lockstep-trainer[kubernetes]'" in done.stderr


def test_the_commands_of_the_docs_work(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    text = (ROOT / "docs/kubernetes.md").read_text().replace("\\\n", " ")
    commands = re.findall(r"^ *python -m launch\.kubernetes (.*?)(?: \||$)", text, re.MULTILINE)
    assert commands
    for command in commands:
        assert kubernetes.main(command.split()) == 0, capsys.readouterr().err
        assert list(yaml.safe_load_all(capsys.readouterr().out))
