package relays

import "errors"

// direct is no relay at all, the measure for all others.
func direct() Relay {
	return Relay{
		Name:   "direct",
		Title:  "direct, no relay",
		Advice: "h2 forwards packets; what a relay adds is what it does worse than this.",
		Way:    Direct,

		Default: true,
	}
}

// tprelays are this project's own daemon.
func tprelays() []Relay {
	of := func(name, title, advice string, flags ...string) Relay {
		return Relay{
			Name: name, Title: title, Advice: advice, Way: Transparent, shares: true, both: true,
			Default: name != "tprelay-no-flow-control", Variant: name != "tprelay",
			recipe: func(s site) ([]process, error) {
				if s.TPRelay == "" {
					return nil, errors.New("no path of tprelay was given")
				}
				mode, _ := s.way.mode()
				args := []string{s.TPRelay, "run", "--mode", mode.String(), "--listen", s.listen.String(), "--log-level", "warn"}
				args = append(append(args, flags...), s.Flags...)
				return []process{{args: args, ports: []uint16{s.listen.Port()}, socket: s.Processes > 1}}, nil
			},
		}
	}
	return []Relay{
		of("tprelay", "tprelay, 1 loop",
			"Its defaults, with one loop, so that it has as many threads as HAProxy with nbthread 1.", "--loops", "1"),
		of("tprelay-loops", "tprelay, one loop per CPU", "Its defaults."),
		// None of the command line's interceptors would do: record writes files, label changes
		// bytes, and replace holds back what may be the beginning of its text, so that the end of a
		// request could wait for ever.
		of("tprelay-buffered", "tprelay, 1 loop, buffers instead of splice",
			"--no-splice: all bytes go through user space, on the path of interceptors, but no interceptor looks at them.", "--loops", "1", "--no-splice"),
		of("tprelay-no-flow-control", "tprelay, 1 loop, no flow control",
			"--no-flow-control: it takes whatever the sender sends, up to its memory limit; to see what flow control is for.", "--loops", "1", "--no-flow-control"),
	}
}
