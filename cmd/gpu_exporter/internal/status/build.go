// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/version"

	"gpu_exporter/cmd/gpu_exporter/internal/config"
	"gpu_exporter/cmd/gpu_exporter/internal/owners"
	"gpu_exporter/collector"
	"gpu_exporter/collector/field"
	"gpu_exporter/collector/metrics/definition"
	"gpu_exporter/collector/model"
)

// Input is what a status is built from.
type Input struct {
	collector.Snapshot
	Owners   []owners.Source
	Config   *config.Config
	Node     string // its name
	Summary  string // of the simulated node; empty: none
	Steering string // start of a command line that steers it
}

// builder builds one status.
type builder struct {
	*Input
	// columns is where each field is, by kind of entity; derived likewise for the derived
	// rows of GPUs.
	columns [model.KindCount]map[model.FieldID]int
	derived map[model.FieldID]int
}

// Build returns the status of the input.
func Build(in *Input) *Status {
	b := &builder{Input: in, derived: map[model.FieldID]int{}}
	s := &Status{
		Time: in.Time.UTC(), Node: in.Node, Ready: in.Ready, NotReady: in.NotReady,
		Problems: []Problem{}, GPUs: []GPU{}, Missing: []Missing{}, Settings: []Setting{},
		Sample: b.sample(), Sampler: b.sampler(), Sources: b.sources(),
		Versions: Versions{Exporter: version.Version, Revision: version.Revision, Engine: in.Config.Source()},
	}
	if inv := in.Inventory; inv != nil {
		for kind := range inv.Columns {
			b.columns[kind] = positions(inv.Columns[kind])
		}
		b.derived = positions(inv.Derived)
		s.Versions.Driver, s.Versions.DCGM = inv.DriverVersion, inv.DCGMVersion
		s.GPUs = b.gpus()
	}
	if in.Sample != nil {
		s.Missing = b.missing()
	}
	s.Problems = b.nodeProblems()
	for _, e := range in.Config.Effective() {
		s.Settings = append(s.Settings, Setting(e))
	}
	if in.Summary != "" {
		s.Simulation = &Simulation{Summary: in.Summary, Steering: in.Steering, Commands: commands()}
	}
	s.State, s.Summary = overall(s)
	return s
}

func positions(columns []model.FieldID) map[model.FieldID]int {
	at := make(map[model.FieldID]int, len(columns))
	for i, f := range columns {
		at[f] = i
	}
	return at
}

// overall returns the worst state, and the number of GPUs in each state.
func overall(s *Status) (State, string) {
	state, counts := Healthy, map[State]int{}
	if len(s.GPUs) == 0 && !s.Ready {
		state = Unknown
	}
	for i := range s.Problems {
		state = worst(state, s.Problems[i].State)
	}
	for i := range s.GPUs {
		state = worst(state, s.GPUs[i].State)
		counts[s.GPUs[i].State]++
	}
	var parts []string
	for _, state := range states() {
		if n := counts[state]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n, state.words()))
		}
	}
	if len(parts) == 0 {
		if s.Sample.Time == nil {
			return state, "No GPU is known yet"
		}
		return state, "The node has no GPU"
	}
	return state, plural(len(s.GPUs), "GPU") + ": " + strings.Join(parts, ", ")
}

// words returns the state as people write it.
func (s State) words() string {
	switch s {
	case Recovery:
		return "recovery needed"
	case CriticalXID:
		return "critical XID"
	}
	return string(s)
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func (b *builder) sample() Sample {
	s := Sample{Fresh: b.Fresh, MaxAge: b.MaxAge.Seconds(), Interval: b.Interval.Seconds()}
	if b.Sample != nil {
		s.Time, s.Age, s.Duration = timeOf(b.Sample.Time), new(b.Age.Seconds()), new(b.Sample.Duration.Seconds())
	}
	return s
}

// timeOf returns nil for the zero time.
func timeOf(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return new(t.UTC())
}

func (b *builder) sampler() Sampler {
	status := &b.Sampler
	s := Sampler{
		State: "waiting", EngineGone: status.EngineGone, PID: status.PID,
		Started: timeOf(status.Started), NextStart: timeOf(status.NextStart),
		Restarts: occurred(status.Restarts), FramesRejected: occurred(status.FramesRejected),
		LastFailure: status.LastFailure.Message, PausedUntil: timeOf(status.ProfilingPausedUntil),
	}
	switch {
	case status.Unreapable:
		s.State = "stuck"
	case status.Sampling:
		s.State = "sampling"
	case status.Running:
		s.State = "starting"
	}
	return s
}

// occurred returns the counts that are not 0.
func occurred(counts map[string]uint64) map[string]uint64 {
	all := map[string]uint64{}
	for reason, n := range counts {
		if n > 0 {
			all[reason] = n
		}
	}
	return all
}

// sources returns the sources of owners and of XIDs.
func (b *builder) sources() []Source {
	all := []Source{}
	for _, source := range b.Owners {
		for i, f := range source.Findings {
			s := Source{About: f.About, Name: f.Name, State: string(f.State), Detail: f.Detail, Advice: f.Advice}
			if i == 0 && !source.LastSuccess.IsZero() {
				s.Age = new(max(0, b.Time.Sub(source.LastSuccess)).Seconds())
			}
			all = append(all, s)
		}
	}
	xids := Source{About: "XIDs", Name: "DCGM", State: string(owners.OK), Detail: "counted by DCGM"}
	if b.KernelLogRead {
		xids.Name, xids.Detail = "kernel log", "counted from the kernel log"
		if !b.KernelLog.Up {
			xids.State, xids.Detail = string(owners.Limited), "the kernel log is not readable: DCGM counts them"
		}
		if b.StrayXIDs > 0 {
			xids.Detail += fmt.Sprintf("; %d of them match no known GPU", b.StrayXIDs)
		}
	}
	return append(all, xids)
}

// missing returns the fields without a value, those that may return first.
func (b *builder) missing() []Missing {
	type key struct {
		field  model.FieldID
		kind   model.EntityKind
		status model.Status
	}
	without, read := map[key]int{}, map[key]int{}
	count := func(kind model.EntityKind, f model.FieldID, status model.Status) {
		read[key{f, kind, model.StatusOK}]++
		// No XID so far is no missing value.
		if status != model.StatusOK && (f != field.XIDErrors || status != model.StatusNoData) {
			without[key{f, kind, status}]++
		}
	}
	for i := range b.Inventory.Entities {
		kind := b.Inventory.Entities[i].Kind
		for c, cell := range b.Sample.Rows[i] {
			count(kind, b.Inventory.Columns[kind][c], cell.Status)
		}
		if i >= len(b.Sample.Derived) {
			continue
		}
		for c, cell := range b.Sample.Derived[i] {
			f := b.Inventory.Derived[c]
			if _, counted := b.columns[kind][f]; !counted || len(b.Sample.Rows[i]) == 0 {
				count(kind, f, cell.Status)
			}
		}
	}
	all := []Missing{}
	for k, n := range without {
		all = append(all, Missing{Field: b.fieldName(k.field), Kind: k.kind.String(), Reason: k.status.String(),
			Lasting: k.status.Lasting(), Entities: n, Of: read[key{k.field, k.kind, model.StatusOK}]})
	}
	slices.SortFunc(all, func(x, y Missing) int {
		return cmp.Or(compareBool(x.Lasting, y.Lasting), cmp.Compare(x.Reason, y.Reason), cmp.Compare(x.Field, y.Field), cmp.Compare(x.Kind, y.Kind))
	})
	return all
}

// compareBool orders false before true.
func compareBool(x, y bool) int {
	switch {
	case x == y:
		return 0
	case y:
		return -1
	}
	return 1
}

// fieldName returns the name by which the counters request the field, or else DCGM's.
func (b *builder) fieldName(id model.FieldID) string {
	for _, c := range b.Counters {
		if c.Computed == 0 && c.Field.ID == id {
			return c.Name
		}
	}
	f, ok := field.ByID(id)
	if !ok {
		return fmt.Sprintf("field %d", id)
	}
	return f.Name
}

// nodeProblems returns the problems of the node, worst first.
func (b *builder) nodeProblems() []Problem {
	all := []Problem{}
	add := func(state State, text, remedy string) { all = append(all, Problem{state, text, remedy}) }
	if !b.Ready {
		add(Unknown, "Not ready: "+b.NotReady, "")
	}
	if b.Sampler.EngineGone && b.Ready {
		add(Unknown, "DCGM's engine failed after the newest sample", "Wait for its restart, or run gpu_exporter doctor")
	}
	if b.Inventory != nil {
		b.addDeviceProblems(add)
	}
	for _, s := range b.Owners {
		for _, f := range s.Findings {
			if f.State == owners.Broken || f.State == owners.Limited {
				add(Warning, fmt.Sprintf("%s (%s): %s", f.About, f.Name, f.Detail), f.Advice)
			}
		}
	}
	if b.KernelLogRead && !b.KernelLog.Up {
		add(Warning, "The kernel log is not readable, so DCGM counts the XIDs", "Let the exporter read the kernel log, or set --xid.kernel-log=off")
	}
	sortProblems(all)
	return all
}

// addDeviceProblems adds the problems of devices that have no row of their own.
func (b *builder) addDeviceProblems(add func(state State, text, remedy string)) {
	if b.Inventory.InstancesUnknown {
		add(Warning, "DCGM does not list the instances of the GPUs in MIG mode", "Check the MIG configuration with nvidia-smi -L")
	}
	for i := range b.GoneSwitches {
		add(Unhealthy, fmt.Sprintf("NVSwitch %d is no longer listed", b.GoneSwitches[i].ID), string(definition.RemedySwitch))
	}
	for i := range b.Inventory.Entities {
		e := &b.Inventory.Entities[i]
		if e.Kind != model.KindSwitch || !e.Selected {
			continue
		}
		if reset := b.value(i, 864); reset.Value != nil && *reset.Value != 0 {
			add(Unhealthy, fmt.Sprintf("NVSwitch %d needs a reset", e.ID), "Drain the node and restart it")
		}
	}
	if b.Health.Failed {
		add(Warning, "DCGM's health check fails, so its results are old", "Run gpu_exporter doctor")
	}
	if b.Checked == nil {
		return
	}
	seen := map[model.HealthIncident]bool{}
	for _, incident := range b.Checked.Incidents {
		name := "The node"
		if at := incident.Entity; at != model.Unknown {
			if _, ofGPU := b.Inventory.GPU(at); ofGPU {
				continue
			}
			e := &b.Inventory.Entities[at]
			name = fmt.Sprintf("%s %d", strings.Replace(e.Kind.String(), "nvswitch", "NVSwitch", 1), e.ID)
		}
		if p, ok := healthProblem(incident); ok && !seen[incident] {
			seen[incident] = true
			add(p.State, name+": "+p.Text, p.Remedy)
		}
	}
}

func sortProblems(all []Problem) {
	slices.SortStableFunc(all, func(x, y Problem) int { return cmp.Compare(x.State.rank(), y.State.rank()) })
}

// commands are examples of what a simulated node can do.
func commands() []Command {
	return []Command{
		{"xid 79 gpu 0", "DCGM reports an XID"},
		{"lose gpu 0", "GPU 0 falls off the bus"},
		{"return gpu 0", "GPU 0 is back"},
		{"heat gpu 0 40", "GPU 0 is 40 degrees hotter"},
		{"reason gpu 0 hw_power_brake on", "the power brake reduces the clocks of GPU 0"},
		{"remap gpu 0 pending 1", "a memory row waits for remapping"},
		{"recovery gpu 0 reset", "the driver requests a reset"},
		{"health gpu 0 memory fail", "DCGM's health check fails"},
		{"load gpu all util 90", "all GPUs are busy"},
		{"hang sampling", "the driver hangs"},
		{"engine lost", "DCGM's engine fails"},
		{"clear", "removes all faults"},
	}
}
