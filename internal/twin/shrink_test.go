package twin

import (
	"encoding/json"
	"slices"
	"testing"
)

// A failing script is shrunk by playing all its simpler variants at once, some times each, and
// going on with the simplest one that fails. (rapid shrinks a sequence of choices, one try after
// the other. A try here takes seconds, and a hundred of them take as long.)

// rounds bound the shrinking; copies of each variant are played at once, as many failures come by
// chance.
const (
	shrinkRounds = 12
	shrinkCopies = 4
)

// shrink gives the simplest variant of a script that still fails.
func (w *world) shrink(j judgement) judgement {
	for range shrinkRounds {
		var scripts []script
		for _, v := range variants(j.script) {
			for range shrinkCopies {
				scripts = append(scripts, v)
			}
		}
		if len(scripts) == 0 {
			break
		}
		wrong, err := w.batch(j.set, scripts)
		if err != nil {
			say("while shrinking: %v", err)
			break
		}
		wrong = slices.DeleteFunc(wrong, func(k judgement) bool { return worst(k.findings) != worst(j.findings) })
		if len(wrong) == 0 {
			break
		}
		j = slices.MinFunc(wrong, func(a, b judgement) int { return size(a.script) - size(b.script) })
	}
	return j
}

// size orders scripts by simplicity.
func size(s script) (n int) {
	for _, p := range []part{s.Client, s.Server} {
		for _, list := range [][]step{p.Write, p.Read} {
			for _, st := range list {
				n += 1000 + bits(st.n) + bits(st.rate) + bits(int64(st.wait/1e6))
			}
		}
		if p.Options != (options{}) {
			n += 100
		}
	}
	if s.Again {
		n += 500
	}
	if s.Late != 0 {
		n += 100
	}
	return n
}

func bits(v int64) (n int) {
	for ; v > 0; v >>= 1 {
		n++
	}
	return n
}

// variants are the script, simpler by one step, number or option.
func variants(s script) (all []script) {
	add := func(change func(*script)) {
		v := clone(s)
		if change(&v); v.valid() && size(v) < size(s) {
			all = append(all, v)
		}
	}
	lists := func(s *script) []*[]step {
		return []*[]step{&s.Client.Write, &s.Client.Read, &s.Server.Write, &s.Server.Read}
	}
	for l, list := range lists(&s) {
		for i, st := range *list {
			add(func(v *script) { l := lists(v)[l]; *l = slices.Delete(*l, i, i+1) })
			if st.n > 1 {
				add(func(v *script) { (*lists(v)[l])[i].n = whole(st.n / 2) })
			}
			if st.rate > 0 {
				add(func(v *script) { (*lists(v)[l])[i].rate = 0 })
			}
			if st.wait > 0 {
				add(func(v *script) { (*lists(v)[l])[i].wait = st.wait / 2 })
			}
		}
	}
	add(func(v *script) { v.Client.Options = options{} })
	add(func(v *script) { v.Server.Options = options{} })
	add(func(v *script) { v.Again = false })
	add(func(v *script) { v.Late = 0 })
	return all
}

func clone(s script) script {
	for _, p := range []*part{&s.Client, &s.Server} {
		p.Write, p.Read = slices.Clone(p.Write), slices.Clone(p.Read)
	}
	return s
}

// repetition is a script with its setting, as a failure prints it.
type repetition struct {
	setting
	Script script `json:"script"`
}

func (j judgement) repetition() string {
	text, err := json.Marshal(repetition{j.set, j.script})
	if err != nil {
		return err.Error()
	}
	return string(text)
}

func TestRepetitionIsReadAsItIsWritten(t *testing.T) {
	for name, p := range profiles {
		j := judgement{set: setting{Path: splice, Mode: "tproxy", Profile: name, Fault: upgrade}, script: p.draw(testRandom())}
		var r repetition
		if err := json.Unmarshal([]byte(j.repetition()), &r); err != nil {
			t.Fatal(err)
		}
		if got := (judgement{set: r.setting, script: r.Script}).repetition(); got != j.repetition() {
			t.Errorf("%s is read as %s", j.repetition(), got)
		}
	}
}
