# Configuration of `make pint`. It needs no Prometheus.
rule {
  match {
    kind = "alerting"
  }
  annotation "summary" {
    severity = "bug"
    required = true
  }
  annotation "description" {
    severity = "bug"
    required = true
  }
  annotation "runbook_url" {
    severity = "bug"
    required = true
  }
  label "severity" {
    severity = "bug"
    value    = "critical|warning|info"
    required = true
  }
  label "group" {
    severity = "bug"
    value    = "act-now|plan|waste|exporter"
    required = true
  }
  for {
    severity = "bug"
    min      = "30s"
  }
}

# The findings that do not apply.

# GPUs without instances have no label GPU_I_ID. In on() and by(), an absent label is an empty one.
# So are namespace and pod of a device that no single pod holds.
rule {
  match {
    name = "gpu:weight:ratio|node:gpus_active:sum|GPUJobStalled|GPUHeldIdle"
  }
  disable = ["promql/impossible"]
}

# These rules add up gpu:weight:ratio, gpu:pod_share:ratio and gpu:job_share:ratio. The divisors
# are the sum of positive weights, and counts of existing series: never 0.
rule {
  match {
    name = "(pod|namespace|job|user|node|cluster):.+"
  }
  disable = ["promql/nan"]
}

# Nodes and clusters have groups of their own. The states that they read are at most one interval
# old. Increases do not match: each must be added once, so they are in the group of their counter.
# The activity of namespaces and users has its counter in its group, and reads shares of another.
rule {
  match {
    name = "(node|cluster):.+:(count|sum)|(namespace|user):gpu_sm_active_seconds:increase"
  }
  disable = ["rule/dependency"]
}
