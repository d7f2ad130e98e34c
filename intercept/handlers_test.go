package intercept

import (
	"errors"
	"testing"
)

// slices cannot be compared, and neither can a handler that is one.
type uncomparable []*int

func (u uncomparable) Handle(*Chunk) Verdict { return Forward }
func (u uncomparable) Close() error          { *u[0]++; return errors.New("broken") }

func TestCloseHandlersClosesEachOnce(t *testing.T) {
	a, b := &closer{}, &closer{}
	noError(t, Decision{Upstream: a, Downstream: b}.CloseHandlers())
	if a.closed != 1 || b.closed != 1 {
		t.Errorf("two handlers closed %d and %d times", a.closed, b.closed)
	}
	c := &closer{}
	noError(t, Decision{Upstream: c, Downstream: c}.CloseHandlers())
	if c.closed != 1 {
		t.Errorf("a shared handler closed %d times", c.closed)
	}
	d := &closer{}
	noError(t, Decision{Downstream: d}.CloseHandlers())
	noError(t, Decision{Upstream: d, Downstream: HandlerFunc(forward)}.CloseHandlers())
	if d.closed != 2 {
		t.Errorf("closed %d times in two decisions", d.closed)
	}
}

func TestCloseHandlersSurvivesWhatCannotBeCompared(t *testing.T) {
	n := 0
	u := uncomparable{&n}
	if err := (Decision{Upstream: u, Downstream: u}).CloseHandlers(); err == nil {
		t.Error("the handlers' errors are lost")
	}
	if n != 2 {
		t.Errorf("closed %d times", n)
	}
	f := HandlerFunc(forward)
	noError(t, Decision{Upstream: f, Downstream: f}.CloseHandlers())
}

// TestPanicLeavesNoHandlerOpen: the code that recovers the panic does not know the other handlers.
func TestPanicLeavesNoHandlerOpen(t *testing.T) {
	bad := &closer{HandlerFunc: forward, panics: true}
	for name, f := range map[string]func(good *closer){
		"the other direction": func(good *closer) { _ = Decision{Upstream: bad, Downstream: good}.CloseHandlers() },
		"the rest of a chain": func(good *closer) {
			_ = Chain(&opens{Decision: Decision{Upstream: bad}}, &opens{Decision: Decision{Upstream: good}}).Open(testPair).CloseHandlers()
		},
		"a chain that is being opened": func(good *closer) {
			Chain(&opens{Decision: Decision{Upstream: good}}, InterceptorFunc(func(Pair) Decision { panic("no decision") })).Open(testPair)
		},
	} {
		good := &closer{HandlerFunc: forward}
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: the panic is lost", name)
				}
			}()
			f(good)
		}()
		if good.closed != 1 {
			t.Errorf("%s: closed %d times", name, good.closed)
		}
	}
}

func TestFunctionsAreInterceptorsAndHandlers(t *testing.T) {
	i := InterceptorFunc(func(p Pair) Decision { return Decision{Refuse: p.ID == 17} })
	if !i.Open(testPair).Refuse {
		t.Error("the function was not asked")
	}
	c := Chunk{Data: []byte("x")}
	c.Write([]byte("ab"))
	c.WriteString("cd")
	if HandlerFunc(forward).Handle(&c) != Forward || string(c.Written()) != "abcd" {
		t.Errorf("written: %q", c.Written())
	}
}
