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
