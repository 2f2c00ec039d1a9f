// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"gpu_exporter/podmapper/internal/kube"
	"gpu_exporter/podmapper/internal/poll"
	"gpu_exporter/podmapper/internal/sourcetest"
)

// lookup returns an ownerLookup with a client of c.
func lookup(t *testing.T, c *cluster, failed func(owner, error)) *ownerLookup {
	t.Helper()
	client, err := kube.Access{Kubeconfig: c.kubeconfig, Node: testNode, Timeout: sourcetest.Patience}.Client()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	o := newOwnerLookup(failed)
	o.client.Store(client)
	return o
}

// recordOf returns the record of a pod in the namespace ml.
func recordOf(t *testing.T, name, templateHash string, above ...metav1.OwnerReference) *record {
	t.Helper()
	p := pod("ml", name, "u-"+name, nil, above...)
	if templateHash != "" {
		p.Labels = map[string]string{labelTemplateHash: templateHash}
	}
	r, err := reader(t, Want{Workload: true}).newRecord(p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestWorkload(t *testing.T) {
	c := newCluster(t)
	const ml = "/namespaces/ml/"
	apps, batch, ray := "/apis/apps/v1"+ml, "/apis/batch/v1"+ml, "/apis/ray.io/v1"+ml

	deployment := c.own(apps+"deployments/web", served{})
	webSet := c.own(apps+"replicasets/web-77", served{}, deployment)
	loneSet := c.own(apps+"replicasets/lone", served{})
	stateful := c.own(apps+"statefulsets/db", served{})
	cron := c.own(batch+"cronjobs/nightly", served{})
	job := c.own(batch+"jobs/nightly-29", served{}, cron)
	rayJob := c.own(ray+"rayjobs/tune", served{json: true})
	rayCluster := c.own(ray+"rayclusters/tune-x", served{json: true}, rayJob)
	hidden := c.own(apps+"replicasets/hidden-88", served{code: http.StatusForbidden})
	hiddenAbove := c.own(apps+"statefulsets/mid", served{}, c.own(ray+"rayjobs/secret", served{code: http.StatusForbidden}))
	gone := metav1.OwnerReference{APIVersion: "batch/v1", Kind: "Job", Name: "gone", UID: "u-gone", Controller: yes()}
	replaced := job
	replaced.UID = "u-of-an-earlier-one"
	unknownKind := metav1.OwnerReference{APIVersion: "batch/v1", Kind: "Sweep", Name: "s", UID: "u-s", Controller: yes()}
	unknownGroup := metav1.OwnerReference{APIVersion: "example.com/v1", Kind: "Sweep", Name: "s", UID: "u-s2", Controller: yes()}
	crooked := metav1.OwnerReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "../../../../api/v1/secrets", UID: "u-c", Controller: yes()}
	loop := c.own(apps+"deployments/loop", served{})
	c.own(apps+"deployments/loop", served{}, loop)
	node := metav1.OwnerReference{APIVersion: "v1", Kind: "Node", Name: "n", UID: "u-n", Controller: yes()}
	follower := deployment
	follower.Controller = nil

	for _, tc := range []struct {
		name, templateHash string
		above              []metav1.OwnerReference
		want, direct       Workload // from the API server, and from the pod alone
		reason             Reason   // counted
	}{
		{name: "Deployment", templateHash: "77", above: []metav1.OwnerReference{webSet}, want: Workload{"Deployment", "web"}, direct: Workload{"Deployment", "web"}},
		{name: "ReplicaSet without an owner", above: []metav1.OwnerReference{loneSet}, want: Workload{"ReplicaSet", "lone"}, direct: Workload{"ReplicaSet", "lone"}},
		{name: "StatefulSet", above: []metav1.OwnerReference{stateful}, want: Workload{"StatefulSet", "db"}, direct: Workload{"StatefulSet", "db"}},
		{name: "CronJob", above: []metav1.OwnerReference{job}, want: Workload{"CronJob", "nightly"}, direct: Workload{"Job", "nightly-29"}},
		{name: "custom resources, in JSON", above: []metav1.OwnerReference{rayCluster}, want: Workload{"RayJob", "tune"}, direct: Workload{"RayCluster", "tune-x"}},
		{name: "forbidden, and the pod has the hash", templateHash: "88", above: []metav1.OwnerReference{hidden},
			want: Workload{"Deployment", "hidden"}, direct: Workload{"Deployment", "hidden"}, reason: poll.Forbidden},
		{name: "forbidden further up", above: []metav1.OwnerReference{hiddenAbove},
			want: Workload{"RayJob", "secret"}, direct: Workload{"StatefulSet", "mid"}, reason: poll.Forbidden},
		{name: "not there any more", above: []metav1.OwnerReference{gone}, want: Workload{"Job", "gone"}, direct: Workload{"Job", "gone"}, reason: poll.NotFound},
		{name: "another one of the name", above: []metav1.OwnerReference{replaced}, want: Workload{"Job", "nightly-29"}, direct: Workload{"Job", "nightly-29"}, reason: poll.NotFound},
		{name: "a kind that is not served", above: []metav1.OwnerReference{unknownKind}, want: Workload{"Sweep", "s"}, direct: Workload{"Sweep", "s"}, reason: poll.NotFound},
		{name: "a group that is not served", above: []metav1.OwnerReference{unknownGroup}, want: Workload{"Sweep", "s"}, direct: Workload{"Sweep", "s"}, reason: poll.NotFound},
		{name: "a path instead of a name", above: []metav1.OwnerReference{crooked},
			want: Workload{"ReplicaSet", crooked.Name}, direct: Workload{"ReplicaSet", crooked.Name}, reason: poll.NotFound},
		{name: "its own owner", above: []metav1.OwnerReference{loop}, want: Workload{"Deployment", "loop"}, direct: Workload{"Deployment", "loop"}},
		{name: "static pod", above: []metav1.OwnerReference{node}},
		{name: "an owner that does not control", above: []metav1.OwnerReference{follower}},
		{name: "none"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			failures := make(map[Reason]int)
			o := lookup(t, c, func(_ owner, err error) { failures[poll.ReasonOf(err)]++ })
			r := recordOf(t, "p", tc.templateHash, tc.above...)
			if got, pending := o.workload(t.Context(), r); got != tc.want || pending {
				t.Errorf("workload %+v, pending %t, want %+v", got, pending, tc.want)
			}
			if r.pod.Workload != tc.direct {
				t.Errorf("from the pod alone %+v, want %+v", r.pod.Workload, tc.direct)
			}
			if len(failures) > 1 || tc.reason != "" && failures[tc.reason] != 1 || tc.reason == "" && len(failures) > 0 {
				t.Errorf("failures %v", failures)
			}
			// Neither a known owner nor a failed one is requested again.
			before := len(c.asked(""))
			if got, _ := o.workload(t.Context(), r); got != tc.want {
				t.Errorf("the workload has become %+v", got)
			}
			if n := len(c.asked("")); n != before {
				t.Errorf("requested again: %q", c.asked("")[before:])
			}
		})
	}
	if n := len(c.asked("secrets")); n != 0 {
		t.Errorf("a name led astray: %q", c.asked("secrets"))
	}
}

// The workload is unknown while a lookup fails for a reason that can pass. After
// maxTries it is the highest known owner.
func TestWorkloadInTrouble(t *testing.T) {
	c := newCluster(t)
	job := c.own("/apis/batch/v1/namespaces/ml/jobs/j", served{}, c.own("/apis/batch/v1/namespaces/ml/cronjobs/c", served{}))
	c.failWith(func(r *http.Request) (int, string) {
		if strings.HasSuffix(r.URL.Path, "/jobs/j") {
			return http.StatusServiceUnavailable, ""
		}
		return 0, ""
	})
	failures := 0
	o := lookup(t, c, func(owner, error) { failures++ })
	r := recordOf(t, "p", "", job)
	for try := 1; try <= maxTries; try++ {
		w, pending := o.workload(t.Context(), r)
		if failures != try {
			t.Errorf("%d failures after %d tries", failures, try)
		}
		if last := try == maxTries; pending == last || (w != Workload{}) != last || last && w != (Workload{"Job", "j"}) {
			t.Errorf("after %d tries the workload is %+v, pending %t", try, w, pending)
		}
		// Another owner is not requested meanwhile.
		requests := len(c.asked(""))
		if _, pending := o.workload(t.Context(), recordOf(t, "q", "", metav1.OwnerReference{
			APIVersion: "batch/v1", Kind: "Job", Name: "k", UID: "u-k", Controller: yes(),
		})); !pending || len(c.asked("")) != requests {
			t.Error("the API server is not left alone after a failure")
		}
		o.expire(r)
	}
	c.failWith(nil)
	if w, pending := o.workload(t.Context(), r); pending || w != (Workload{"CronJob", "c"}) {
		t.Errorf("afterwards the workload is %+v", w)
	}
}

// expire ends the pause after a failed lookup.
func (o *ownerLookup) expire(r *record) {
	e, _ := o.known.Get(r.controller.uid)
	e.(*ownerEntry).retry, o.paused = time.Time{}, time.Time{}
}

// The number of requests at a time is bounded, and so is the number of known owners.
func TestOwnerBounds(t *testing.T) {
	c := newCluster(t)
	o := lookup(t, c, func(owner, error) {})
	pendingPods := 0
	const many = 10 * ownerBurst
	began := time.Now()
	for i := range many {
		name := fmt.Sprintf("set-%d", i)
		_, pending := o.workload(t.Context(), recordOf(t, name, "", c.own("/apis/apps/v1/namespaces/ml/statefulsets/"+name, served{})))
		if pending {
			pendingPods++
		}
	}
	allowed := ownerBurst + 1 + int(time.Since(began).Seconds()*ownersPerSecond)
	if got := many - pendingPods; got < ownerBurst || got > allowed {
		t.Errorf("%d lookups, of which %d are allowed", got, allowed)
	}
	for i := range maxOwners {
		o.workload(t.Context(), recordOf(t, "p", "", metav1.OwnerReference{APIVersion: "v1", Kind: "Job", UID: types.UID(fmt.Sprint(i)), Name: "j", Controller: yes()}))
	}
	if n := len(o.known.Keys()); n != maxOwners {
		t.Errorf("%d owners are known", n)
	}
}

// A pod does not appear without its workload first.
func TestWorkloadComesWithThePod(t *testing.T) {
	c := newCluster(t)
	deployment := c.own("/apis/apps/v1/namespaces/ml/deployments/web", served{})
	set := c.own("/apis/apps/v1/namespaces/ml/replicasets/web-1", served{}, deployment)
	secret := c.own("/apis/ray.io/v1/namespaces/ml/rayclusters/r", served{code: http.StatusForbidden})
	c.put(meta(pod("ml", "web-1-x", "u-1", nil, set)), meta(pod("ml", "ray", "u-2", nil, secret)))
	r := newRig(t, func(conf *Config) { conf.Source, conf.Kubeconfig = SourceAPIServer, c.kubeconfig })
	r.run()
	sourcetest.Eventually(t, "the pods", func() bool { return len(r.Pods().All()) > 0 })
	r.wait("the first pods", "ml/ray u-2 RayCluster/r", "ml/web-1-x u-1 Deployment/web")
	c.put(meta(pod("ml", "web-1-y", "u-3", nil, set)))
	sourcetest.Eventually(t, "the next pod", func() bool { return r.Pods().ByName("ml", "web-1-y") != nil })
	if w := r.Pods().ByName("ml", "web-1-y").Workload; w != (Workload{"Deployment", "web"}) {
		t.Errorf("its workload is %+v", w)
	}
	if n := len(c.asked("replicasets/")); n != 1 {
		t.Errorf("the ReplicaSet is requested %d times", n)
	}
	if n := r.OwnerFailures()[poll.Forbidden]; n != 1 || r.log.Lines("RayCluster") == 0 {
		t.Errorf("%d failures are counted", n)
	}
}
