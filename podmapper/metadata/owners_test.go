// Copyright The gpu_exporter Authors
// SPDX-License-Identifier: Apache-2.0

package metadata

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func client(t *testing.T, c *cluster) *apiClient {
	t.Helper()
	config, err := c.config()
	if err != nil {
		t.Fatal(err)
	}
	a, err := newAPIClient(config, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.close)
	return a
}

// recordOf gives the record of a pod in namespace ml.
func recordOf(t *testing.T, name, templateHash string, above ...metav1.OwnerReference) *record {
	t.Helper()
	p := pod("ml", name, "u-"+name, nil, above...)
	if templateHash != "" {
		p.Labels = map[string]string{labelTemplateHash: templateHash}
	}
	o, err := newDecoder(nil, nil, nil).pod(marshal(t, p))
	if err != nil {
		t.Fatal(err)
	}
	s := newShelf()
	s.put(o)
	return s.records[string(p.UID)]
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
		{name: "ReplicaSet of nobody", above: []metav1.OwnerReference{loneSet}, want: Workload{"ReplicaSet", "lone"}, direct: Workload{"ReplicaSet", "lone"}},
		{name: "StatefulSet", above: []metav1.OwnerReference{stateful}, want: Workload{"StatefulSet", "db"}, direct: Workload{"StatefulSet", "db"}},
		{name: "CronJob", above: []metav1.OwnerReference{job}, want: Workload{"CronJob", "nightly"}, direct: Workload{"Job", "nightly-29"}},
		{name: "custom resources, in JSON", above: []metav1.OwnerReference{rayCluster}, want: Workload{"RayJob", "tune"}, direct: Workload{"RayCluster", "tune-x"}},
		{name: "forbidden, and the pod says more", templateHash: "88", above: []metav1.OwnerReference{hidden},
			want: Workload{"Deployment", "hidden"}, direct: Workload{"Deployment", "hidden"}, reason: ReasonForbidden},
		{name: "forbidden further up", above: []metav1.OwnerReference{hiddenAbove},
			want: Workload{"RayJob", "secret"}, direct: Workload{"StatefulSet", "mid"}, reason: ReasonForbidden},
		{name: "not there any more", above: []metav1.OwnerReference{gone}, want: Workload{"Job", "gone"}, direct: Workload{"Job", "gone"}, reason: ReasonNotFound},
		{name: "another one of the name", above: []metav1.OwnerReference{replaced}, want: Workload{"Job", "nightly-29"}, direct: Workload{"Job", "nightly-29"}, reason: ReasonNotFound},
		{name: "a kind that is not served", above: []metav1.OwnerReference{unknownKind}, want: Workload{"Sweep", "s"}, direct: Workload{"Sweep", "s"}, reason: ReasonNotFound},
		{name: "a group that is not served", above: []metav1.OwnerReference{unknownGroup}, want: Workload{"Sweep", "s"}, direct: Workload{"Sweep", "s"}, reason: ReasonNotFound},
		{name: "a path instead of a name", above: []metav1.OwnerReference{crooked},
			want: Workload{"ReplicaSet", crooked.Name}, direct: Workload{"ReplicaSet", crooked.Name}, reason: ReasonNotFound},
		{name: "its own owner", above: []metav1.OwnerReference{loop}, want: Workload{"Deployment", "loop"}, direct: Workload{"Deployment", "loop"}},
		{name: "static pod", above: []metav1.OwnerReference{node}},
		{name: "an owner that does not control", above: []metav1.OwnerReference{follower}},
		{name: "none"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			failures := make(map[Reason]int)
			o := newOwners(func(_ owner, err error) { failures[reasonOf(err)]++ })
			r := recordOf(t, "p", tc.templateHash, tc.above...)
			a := client(t, c)
			again := o.find(t.Context(), a, []*record{r, r})
			if got := o.top(r); got != tc.want {
				t.Errorf("workload %+v, want %+v", got, tc.want)
			}
			if got := direct(r.controller, r.templateHash); got != tc.direct {
				t.Errorf("from the pod alone %+v, want %+v", got, tc.direct)
			}
			if (again > 0) != (tc.reason != "") || len(failures) > 1 || tc.reason != "" && failures[tc.reason] != 1 {
				t.Errorf("again after %s, failures %v", again, failures)
			}
			// What is known is not asked for again, and neither is what failed.
			before := len(c.asked(""))
			o.find(t.Context(), a, []*record{r})
			if n := len(c.asked("")); n != before {
				t.Errorf("asked again: %q", c.asked("")[before:])
			}
		})
	}
	if n := len(c.asked("secrets")); n != 0 {
		t.Errorf("a name led astray: %q", c.asked("secrets"))
	}
}

// While an owner cannot be looked up for a reason that will pass, the workload
// is not known; in the end it is the highest owner that is.
func TestWorkloadInTrouble(t *testing.T) {
	c := newCluster(t)
	set := c.own("/apis/batch/v1/namespaces/ml/jobs/j", served{}, c.own("/apis/batch/v1/namespaces/ml/cronjobs/c", served{}))
	var tries atomic.Int32
	c.failWith(func(r *http.Request) (int, string) {
		if strings.HasSuffix(r.URL.Path, "/jobs/j") {
			tries.Add(1)
			return http.StatusServiceUnavailable, ""
		}
		return 0, ""
	})
	failures := 0
	o := newOwners(func(owner, error) { failures++ })
	o.retry = time.Millisecond
	r, a := recordOf(t, "p", "", set), client(t, c)
	find := func() {
		if again := o.find(t.Context(), a, []*record{r}); again <= 0 {
			t.Fatal("nothing is to be looked up again")
		}
		time.Sleep(time.Until(o.known[r.controller.uid].retry))
	}
	for range maxTries - 1 {
		find()
		if w := o.top(r); w != (Workload{}) {
			t.Errorf("after %d tries the workload is %+v", tries.Load(), w)
		}
	}
	find()
	if w := o.top(r); w != (Workload{"Job", "j"}) || failures != maxTries {
		t.Errorf("after %d tries the workload is %+v", tries.Load(), w)
	}
	c.failWith(nil)
	if again := o.find(t.Context(), a, []*record{r}); again != 0 || o.top(r) != (Workload{"CronJob", "c"}) {
		t.Errorf("afterwards the workload is %+v", o.top(r))
	}
}

// Many owners are not looked up all at once, and the pods that are known by then
// are not kept waiting.
func TestOwnersAreNotRushed(t *testing.T) {
	o := newOwners(func(owner, error) {})
	for range int(time.Second/ownerRate) + 1 {
		if !o.mayAsk(t.Context()) {
			t.Fatal("the first second's worth is not allowed at once")
		}
	}
	if next := time.Until(o.next); next <= 0 || next > ownerRate {
		t.Errorf("the next one is allowed after %s", next)
	}
}

// Owners of pods that are gone are forgotten.
func TestOwnersAreForgotten(t *testing.T) {
	o := newOwners(func(owner, error) {})
	for i := range maxOwners {
		o.known[strings.Repeat("x", i)] = &ownerEntry{used: i == 7}
	}
	o.clean()
	if len(o.known) != 1 || o.known["xxxxxxx"] == nil {
		t.Errorf("%d owners are left", len(o.known))
	}
}

// A pod does not appear without its workload first.
func TestWorkloadComesWithThePod(t *testing.T) {
	c := newCluster(t)
	deployment := c.own("/apis/apps/v1/namespaces/ml/deployments/web", served{})
	set := c.own("/apis/apps/v1/namespaces/ml/replicasets/web-1", served{}, deployment)
	secret := c.own("/apis/ray.io/v1/namespaces/ml/rayclusters/r", served{code: http.StatusForbidden})
	c.put(meta(pod("ml", "web-1-x", "u-1", nil, set)), meta(pod("ml", "ray", "u-2", nil, secret)))
	r := newRig(t, func(conf *Config) { conf.Source, conf.REST = SourceAPIServer, c.config })
	r.run()
	eventually(t, "the pods", func() bool { return len(r.Pods().All()) > 0 })
	r.wait("the first pods", "ml/ray u-2 RayCluster/r", "ml/web-1-x u-1 Deployment/web")
	c.put(meta(pod("ml", "web-1-y", "u-3", nil, set)))
	eventually(t, "the next pod", func() bool { return r.Pods().ByName("ml", "web-1-y") != nil })
	if w := r.Pods().ByName("ml", "web-1-y").Workload; w != (Workload{"Deployment", "web"}) {
		t.Errorf("its workload is %+v", w)
	}
	if n := len(c.asked("replicasets/")); n != 1 {
		t.Errorf("the ReplicaSet is asked for %d times", n)
	}
	if n := r.OwnerFailures()[ReasonForbidden]; n != 1 || r.log.count("RayCluster") == 0 {
		t.Errorf("%d failures are counted", n)
	}
}
