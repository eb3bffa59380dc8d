"""Renders the chart with the Helm SDK and checks what comes out. Called by packaging.sh."""

import pathlib
import subprocess
import sys
import tempfile

import helm_python
import kubernetes_validate
import yaml

helm_python.disable_logging()
BUILD = pathlib.Path(sys.argv[1])
CHART = "helm/atod"
EVERYTHING = {
    "image": {"repository": "registry.local/atod", "tag": "cpu"},
    "imagePullSecrets": [{"name": "pull"}],
    "config": {"name": "big", "steps": 10000000, "optimizer": {"lr": 1e-7}, "teachers": [{"path": "data/t"}],
               "model": {"path": "data/s"}},
    "prepare": {"enabled": False},
    "data": {"accessModes": ["ReadWriteMany"], "storageClassName": "fast"},
    "learner": {"resources": {"limits": {"memory": "4Gi"}}, "nodeSelector": {"disk": "ssd"}, "runs": {"storageClassName": "local"}},
    "envs": {"replicas": 3},
    "rollout": {"replicas": 4, "tolerations": [{"key": "gpu", "operator": "Exists"}]},
    "networkPolicy": {"enabled": True, "metricsFrom": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]},
    "monitoring": {name: {"enabled": True, "labels": {"release": "prometheus"}} for name in ("serviceMonitor", "rules", "dashboard")},
}
REFUSED = {
    "rollout.replicas": {"rollout": {"replicas": 0}},
    "rollout.replica": {"rollout": {"replica": 2}},
    "config.steps": {"config": {"steps": "many"}},
    "config.optimizer.lr": {"config": {"optimizer": {"lr": -1}}},
    "config.algorithm.kl_coef_int": {"config": {"algorithm": {"kl_coef_int": 1}}},
    "config.device": {"config": {"device": "tpu"}},
    "config.teachers": {"config": {"teachers": {"path": "x"}}},
    "image.pullPolicy": {"image": {"pullPolicy": "Sometimes"}},
    "data.size": {"data": {"size": "big"}},
}
CUSTOM = {"ServiceMonitor", "PrometheusRule"}  # no schema in Kubernetes itself


def check(ok, what):
    if not ok:
        sys.exit(f"FAILED: {what}")
    print(f"ok: {what}")


def objects(values):
    with helm_python.Chart.load(CHART) as chart:
        rendered = chart.render(values, name="r", namespace="ml")
    return [o for path, text in rendered.items() if not path.endswith(".txt") for o in yaml.safe_load_all(text) if o]


def find(all_objects, kind, name):
    return next(o for o in all_objects if o["kind"] == kind and o["metadata"]["name"] == name)


def check_config(all_objects, what):
    """The programs' own loader accepts the ConfigMap's files."""
    data = find(all_objects, "ConfigMap", "r-atod-config")["data"]
    with tempfile.TemporaryDirectory() as folder:
        args = [BUILD / "bin/atod-reference", "--config"]
        for name in ("embedded.yaml", "run.yaml", "cluster.yaml"):
            if name in data:
                path = pathlib.Path(folder, name)
                path.write_text(data[name])
                args.append(path)
        done = subprocess.run(args, capture_output=True, text=True)
    check(done.returncode == 0, f"{what}: the loader accepts the configuration {done.stderr}")
    return yaml.safe_load(done.stdout)


def check_pods(all_objects, what):
    templates = [o["spec"]["template"]["spec"] for o in all_objects if o["kind"] in ("StatefulSet", "Deployment")]
    check(len(templates) == 4, f"{what}: four workloads")
    for spec in templates:
        assert spec["securityContext"]["runAsNonRoot"] and not spec["automountServiceAccountToken"], spec
        for container in spec["containers"]:
            for name in ("startupProbe", "livenessProbe", "readinessProbe"):
                # A stopped process takes TCP connections, but answers nothing.
                assert container[name].keys() & {"grpc", "httpGet"}, (name, container)
        for container in spec["containers"] + spec.get("initContainers", []):
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"], container
            assert context["capabilities"]["drop"] == ["ALL"], container
            mounts = {m["name"] for m in container["volumeMounts"]}
            volumes = {v["name"] for v in spec["volumes"]} | {"runs"}
            assert mounts <= volumes, container
    print(f"ok: {what}: pods are restricted")


for what, values in {"defaults": {}, "everything": EVERYTHING}.items():
    report = helm_python.lint(CHART, values, strict=True)
    check(not report.get("errors") and report.get("passed", True), f"{what}: helm lint --strict {report}")
    rendered = objects(values)
    for o in rendered:
        if o["kind"] not in CUSTOM:
            kubernetes_validate.validate(o, "1.37", strict=True)
    print(f"ok: {what}: {len(rendered)} objects follow the Kubernetes schemas")
    check_pods(rendered, what)
    config = check_config(rendered, what)
    check(config["rpc"]["learner"] == "r-atod-learner:7701", f"{what}: addresses are the release's")
    if what == "everything":
        check(config["steps"] == 10000000 and float(config["optimizer"]["lr"]) == 1e-7, "numbers survive Helm")
        check(config["rpc"]["envs"].count(",") == 2, "every environment server is addressed")
        check(len(find(rendered, "PrometheusRule", "r-atod")["spec"]["groups"]) == 2, "alert rules are in the chart")
        check(find(rendered, "ConfigMap", "r-atod-dashboard")["data"]["atod.json"].startswith("{"), "the dashboard is in the chart")

with helm_python.Chart.load(CHART) as chart:
    for path, values in REFUSED.items():
        try:
            chart.validate_schema(values)
        except helm_python.HelmValuesError as error:
            # Unknown keys are named beside the path of their parent.
            parent, _, key = path.rpartition(".")
            text = str(error).replace("/", ".")
            assert path in text or (parent in text and key in text), (path, str(error))
        else:
            sys.exit(f"FAILED: {values} was not refused")
    print(f"ok: {len(REFUSED)} bad values are refused with their path")
