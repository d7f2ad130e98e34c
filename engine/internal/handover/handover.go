// Package handover moves listeners and pairs from one engine to the engine of another process: the
// frames between the two, the link that carries them, and the rules of who owns a pair when. It
// knows no loop: the engines freeze, serve and release their pairs themselves.
//
// The two engines talk over a stream socket of the Unix domain:
//
//	old engine (Sender)                             new engine (Receiver)
//
//	Greet       hello, each listening socket  --->  Greet
//	AwaitReady                                <---  Ready   its loops run; it has room for n pairs
//	Offer       some pairs, sync              --->  Next    holds the pairs
//	                                          <---          ack: it holds all of them
//	Commit      commit                        --->          returns the pairs, to be served
//	... until no pair is left
//	Done        done                          --->  Next    returns io.EOF: the new engine accepts
//
// A pair is transferred in two phases, so that at no time both engines serve it:
//
//	old engine                  link                new engine
//
//	 serving
//	    | freeze
//	    v           ---- pairs, sync ---->
//	 frozen                                         held: descriptors open, no byte moved
//	    |           <-------- ack --------
//	    | commit
//	    v           ------ commit ------->
//	 released                                       serving
//
// Invariants:
//
//   - frozen -> released: the old engine has an acknowledgement of the whole batch, and sendmsg has
//     taken the commit. A stream socket takes a message of this size whole or not at all, and the
//     new engine can read what it took even if the link is shut down afterwards. The old engine
//     closes its descriptors and never touches the pair again.
//   - frozen -> serving (resume): in every other case. The new engine cannot start the pair: no
//     commit was sent, and a Sender that has failed sends nothing more.
//   - held -> serving: the new engine has read the commit.
//   - held -> closed: the link came to an end before that. The new engine only closes its
//     descriptors. If the old one is gone as well, this is the last reference to the sockets,
//     and the kernel resets both connections: see [sock.ConnOptions] on SO_LINGER.
//
// So a pair has one owner, or none and is reset at both ends. Done is the commit of the
// listeners: until the new engine has read it, or the link has come to its end because the old
// process is gone, only the old engine accepts.
//
// Each side is a state machine. A call in any other state than the one it leaves is an error and
// sends nothing:
//
//	Sender                                    Receiver
//
//	 new                                       new
//	  | Greet                                   | Greet
//	 greeted                                   greeted
//	  | AwaitReady                              | Ready
//	  v                                         v
//	 ready <-----+                             holding <----+    pairs are added to what is held
//	  |  | Offer | Commit                       |  | sync    | commit: what is held is returned
//	  | offered -+                              | acked -----+
//	  | Done                                    | done
//	 done                                      done
//
//	 any error -> failed                       any error -> failed: what is held is closed
package handover

// Version is the version of the conversation. It changes when an older engine could not understand
// a newer one, or would lose something.
const Version = 2
