package rules

import (
	"errors"
	"io/fs"
	"path/filepath"
)

// planSysctls returns the changes that c needs, in the order in which they are made and
// restored. Setting forwarding also changes the setting of all interfaces and, for IPv4,
// accept_redirects. These are recorded after it, so that they are restored after it.
func (c Config) planSysctls() ([]change, error) {
	wrong, err := c.wrongSysctls()
	if err != nil {
		return nil, err
	}
	var plan []change
	add := func(path, value string) error {
		old, err := readSysctl(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		plan = append(plan, change{path, old, value})
		return err
	}
	for _, s := range wrong {
		if err := add(s.path, s.want); err != nil {
			return nil, err
		}
		conf := map[string]string{
			"net/ipv4/ip_forward":          "net/ipv4/conf",
			"net/ipv6/conf/all/forwarding": "net/ipv6/conf",
		}[s.path]
		if conf == "" {
			continue
		}
		others, err := perInterface(filepath.Join(conf, "all/forwarding"))
		if err != nil {
			return nil, err
		}
		for _, path := range append(others, filepath.Join(conf, "default/forwarding")) {
			if err := add(path, s.want); err != nil {
				return nil, err
			}
		}
		if conf == "net/ipv4/conf" {
			if err := add("net/ipv4/conf/all/accept_redirects", "0"); err != nil {
				return nil, err
			}
		}
	}
	return plan, nil
}

// setSysctls makes the planned changes.
func setSysctls(plan []change) error {
	for _, ch := range plan {
		if now, err := readSysctl(ch.Path); err == nil && now == ch.New {
			continue
		}
		if err := writeSysctl(ch.Path, ch.New); err != nil {
			return err
		}
	}
	return nil
}

// restoreSysctls restores the old values, except for settings that were changed by somebody
// else since, or whose interface is gone.
func restoreSysctls(changes []change) error {
	// Find out which settings are unchanged before the first one is restored, because that
	// changes others.
	var ours []change
	for _, ch := range changes {
		if now, err := readSysctl(ch.Path); err == nil && now == ch.New {
			ours = append(ours, ch)
		}
	}
	var errs []error
	for _, ch := range ours {
		if now, err := readSysctl(ch.Path); err == nil && now == ch.Old {
			continue
		}
		if err := writeSysctl(ch.Path, ch.Old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return oneLine(errs)
}
