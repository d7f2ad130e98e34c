package engine

import (
	"net/netip"

	"github.com/tprelay/tprelay/engine/internal/pump"
	"github.com/tprelay/tprelay/internal/sock"
	"github.com/tprelay/tprelay/tproxy"
)

// side names an end of a pair, and also the direction of which it is the source.
type side uint8

const (
	incoming side = 0 // the client's flow; the source of the upstream direction
	outgoing side = 1 // the server's flow; the source of the downstream direction

	upstream   = incoming
	downstream = outgoing
)

func (s side) other() side { return 1 - s }

// state is a phase in the life of a pair.
type state uint8

const (
	stateFree       state = iota // the slot is not in use
	stateWaiting                 // no descriptor was left for the outgoing flow; tried again each tick
	stateConnecting              // the outgoing flow is being opened
	stateOpen                    // both flows stand
	stateHandingOff              // frozen for another engine, to which it is not committed yet
)

// pair is the record of two flows that are relayed to each other. Records live in slabs and are
// reused: the generation tells a record's users apart. A record takes at most 256 bytes and has no
// pointers. What needs pointers is in the loop's side table, under the same slot.
type pair struct {
	generation  int32
	slot        int32
	fd          [2]int32
	dir         [2]pump.Pump // by the side of their source
	id          uint64
	began       int64 // nanoseconds since the loop's start; negative: in another process
	client      [16]byte
	destination [16]byte
	clientScope uint32 // interface's index, of a link-local address
	destScope   uint32
	clientPort  uint16
	destPort    uint16
	listener    int16 // index; -1: adopted
	state       state
	level       tproxy.SpoofLevel
	cause       uint8  // why, as errno
	queued      bool   // on the ready list
	hasExtra    bool   // the side table has an entry
	shared      bool   // adopted, taken over or once frozen: its descriptors may have duplicates
	opened      bool   // its outgoing flow was established once
	counted     bool   // in sources
	last        uint32 // tick of the last activity, as far as known: see look
	seen        uint32 // what the last look saw
	unacked     uint32 // see passReset: bytes that were not acknowledged at its last look
	due         uint32 // tick at which the wheel looks; valid while in the wheel
	next, prev  int32  // wheel list, by slot + 1; prev < 0: head of bucket -prev-1; 0: not in the wheel
}

func (p *pair) clientAddr() netip.AddrPort {
	return address(p.client, p.clientScope, p.clientPort)
}

func (p *pair) destinationAddr() netip.AddrPort {
	if p.destPort == 0 && p.destination == [16]byte{} {
		return netip.AddrPort{} // it could not be learned
	}
	return address(p.destination, p.destScope, p.destPort)
}

func address(ip [16]byte, scope uint32, port uint16) netip.AddrPort {
	return netip.AddrPortFrom(sock.WithScope(netip.AddrFrom16(ip).Unmap(), scope), port)
}

// half reports that a FIN was passed on in one direction at least.
func (p *pair) half() bool {
	return p.dir[upstream].Is(pump.FINSent) || p.dir[downstream].Is(pump.FINSent)
}

// table holds a loop's pairs in slabs that never move.
type table struct {
	slabs [][]pair
	free  []int32
	used  int
}

const slabSize = 256

func (t *table) at(slot int32) *pair { return &t.slabs[slot/slabSize][slot%slabSize] }

// size is the number of slots there are, used or not.
func (t *table) size() int32 { return int32(len(t.slabs) * slabSize) }

// take returns an unused record. All of it is cleared but its generation and slot.
func (t *table) take() *pair {
	if len(t.free) == 0 {
		t.grow()
	}
	slot := t.free[len(t.free)-1]
	t.free = t.free[:len(t.free)-1]
	t.used++
	p := t.at(slot)
	*p = pair{generation: p.generation, slot: slot, fd: [2]int32{-1, -1}, dir: [2]pump.Pump{pump.New(), pump.New()}, state: stateConnecting, listener: -1}
	return p
}

func (t *table) grow() {
	first := t.size()
	t.slabs = append(t.slabs, make([]pair, slabSize))
	for slot := first + slabSize - 1; slot >= first; slot-- {
		t.at(slot).slot = slot
		t.free = append(t.free, slot)
	}
}

// put takes a record back. Events of its old generation are stale from here on.
func (t *table) put(p *pair) {
	p.generation++
	p.state = stateFree
	t.used--
	t.free = append(t.free, p.slot)
}
