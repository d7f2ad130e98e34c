package engine

// Reason says why a pair ended.
type Reason uint8

const (
	ReasonNone             Reason = iota // it has not ended
	ReasonEOF                            // both sides sent FIN, all was delivered
	ReasonReset                          // one side sent RST, or its connection broke
	ReasonDialError                      // the outgoing connection could not be opened; Stats has the errno
	ReasonConnectTimeout                 // ... in time
	ReasonIdleTimeout                    // nothing moved for IdleTimeout
	ReasonHalfCloseTimeout               // one direction had ended, and the other was silent
	ReasonRejected                       // the interceptor refused it
	ReasonIntercepted                    // a handler closed or reset it, or held back too much
	ReasonLoop                           // its destination was the relay itself
	ReasonNoDestination                  // the original destination could not be learned
	ReasonDrained                        // the engine was shut down first
	ReasonDenied                         // its destination may not be reached
	ReasonSourceLimit                    // its client had MaxPairsPerSource already
	ReasonPanicked                       // its interceptor, handler or observer panicked
	ReasonHandedOver                     // another engine has it: see HandOver
	reasons                              // how many there are
)

var reasonNames = [reasons]string{
	"none", "eof", "reset", "dial-error", "connect-timeout", "idle-timeout", "half-close-timeout",
	"rejected", "intercepted", "loop", "no-destination", "drained",
	"denied", "source-limit", "panicked", "handed-over",
}

// String gives the name used in logs and statistics, e.g. half-close-timeout.
func (r Reason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return "unknown"
}

// MarshalText makes a reason its name in JSON.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }
