package intercept

import (
	"net/netip"
	"testing"
)

// opens is an interceptor that gives the same decision, and counts.
type opens struct {
	Decision
	asked int
}

func (o *opens) Open(Pair) Decision { o.asked++; return o.Decision }

func TestChainOfNoneOrOneIsNoChain(t *testing.T) {
	if Chain() != nil || Chain(nil, nil) != nil {
		t.Error("a chain of nothing is something")
	}
	one := &opens{}
	if Chain(nil, one, nil) != Interceptor(one) {
		t.Error("a chain of one is not that one")
	}
}

func TestChainDecides(t *testing.T) {
	a := netip.MustParseAddrPort("192.0.2.1:1")
	b := netip.MustParseAddrPort("192.0.2.2:2")
	d := Chain(&opens{Decision: Decision{Destination: a}}, &opens{Decision: Decision{Destination: b}}, &opens{}).Open(testPair)
	if d.Destination != b || d.Refuse || d.Upstream != nil || d.Downstream != nil {
		t.Errorf("decided %+v", d)
	}

	h := &closer{HandlerFunc: forward}
	before := &opens{Decision: Decision{Upstream: h, Downstream: h}}
	refuses := &opens{Decision: Decision{Refuse: true, Upstream: &closer{}, Destination: a}}
	after := &opens{}
	d = Chain(before, refuses, after).Open(testPair)
	if d != (Decision{Refuse: true}) {
		t.Errorf("decided %+v", d)
	}
	if h.closed != 1 || after.asked != 0 {
		t.Errorf("handler closed %d times, interceptor behind the refusal asked %d times", h.closed, after.asked)
	}
}

func TestChainWithHandlersOfOneInterceptorAddsNothing(t *testing.T) {
	h := &closer{HandlerFunc: forward}
	d := Chain(&opens{}, &opens{Decision: Decision{Downstream: h}}).Open(testPair)
	if d.Upstream != nil || d.Downstream != Handler(h) {
		t.Errorf("decided %+v", d)
	}
}

func TestChainLeavesDirectionsWithoutHandlerToSplice(t *testing.T) {
	h := HandlerFunc(forward)
	up := &opens{Decision: Decision{Upstream: h}}
	down := &opens{Decision: Decision{Downstream: h}}
	if d := Chain(up, up).Open(testPair); d.Upstream == nil || d.Downstream != nil {
		t.Errorf("decided %+v", d)
	}
	if d := Chain(down, down).Open(testPair); d.Upstream != nil || d.Downstream == nil {
		t.Errorf("decided %+v", d)
	}
}

func TestChainClosesEachHandlerOnce(t *testing.T) {
	shared, up, down := &closer{}, &closer{}, &closer{}
	shared.HandlerFunc, up.HandlerFunc, down.HandlerFunc = forward, forward, forward
	d := Chain(
		&opens{Decision: Decision{Upstream: shared, Downstream: shared}},
		&opens{Decision: Decision{Upstream: up, Downstream: down}},
		&opens{Decision: Decision{Upstream: HandlerFunc(forward)}},
	).Open(testPair)
	noError(t, d.CloseHandlers())
	if shared.closed != 1 || up.closed != 1 || down.closed != 1 {
		t.Errorf("closed %d, %d, %d times", shared.closed, up.closed, down.closed)
	}
}
