package engine

// Reason says why a pair ended.
type Reason uint8

const (
	ReasonNone             Reason = iota // the pair has not ended
	ReasonEOF                            // both sides sent a FIN, and all bytes were delivered
	ReasonReset                          // one side sent an RST, or its connection broke
	ReasonDialError                      // the outgoing connection could not be opened; PairInfo.Err says why
	ReasonConnectTimeout                 // the outgoing connection did not open within ConnectTimeout
	ReasonIdleTimeout                    // the pair was silent for IdleTimeout
	ReasonHalfCloseTimeout               // one direction had ended, and the pair was silent for HalfCloseTimeout
	ReasonRejected                       // the interceptor refused the pair
	ReasonIntercepted                    // a handler returned Close or Reset, or held back more than MaxHold
	ReasonLoop                           // the destination is the relay itself
	ReasonNoDestination                  // the original destination could not be learned
	ReasonDrained                        // the engine was closed, or DrainTimeout was over
	ReasonDenied                         // the destination is denied (Deny, AllowLocal)
	ReasonSourceLimit                    // the client has MaxPairsPerSource pairs already
	ReasonPanicked                       // the interceptor, a handler or the observer panicked
	ReasonHandedOver                     // another engine has taken the pair over (HandOver)
	reasons                              // how many there are
)

var reasonNames = [reasons]string{
	"none", "eof", "reset", "dial-error", "connect-timeout", "idle-timeout", "half-close-timeout",
	"rejected", "intercepted", "loop", "no-destination", "drained",
	"denied", "source-limit", "panicked", "handed-over",
}

// String gives the name that logs and statistics use, such as half-close-timeout.
func (r Reason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return "unknown"
}

// MarshalText gives the name of r, which stands for it in JSON.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }
