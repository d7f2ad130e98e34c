package rules

import (
	"context"
	"fmt"
	"strings"

	"github.com/tprelay/tprelay/tproxy"
)

// feature is a part of the kernel that may be missing.
type feature struct {
	name, module, config string
	// chain and rule use the feature and as little else as possible. For iptables, chain is
	// the table.
	chain, rule string
}

func (c Config) features() []feature {
	var out []feature
	if c.Backend == NFT {
		const filter, nat = "type filter hook prerouting priority mangle;", "type nat hook prerouting priority dstnat;"
		if c.routed() {
			out = append(out, feature{"socket", "nft_socket", "CONFIG_NFT_SOCKET", filter, "socket transparent 1 accept"},
				feature{"socket wildcard", "the nft_socket of Linux 5.9", "CONFIG_NFT_SOCKET", filter, "socket wildcard 1 accept"})
		}
		if c.Mode == tproxy.TPROXY {
			out = append(out, feature{"tproxy", "nft_tproxy", "CONFIG_NFT_TPROXY", filter, "meta l4proto tcp tproxy to :1"})
		} else {
			out = append(out, feature{"redirect", "nft_redir", "CONFIG_NFT_REDIR", nat, "meta l4proto tcp redirect to :1"},
				feature{"dnat", "nft_nat", "CONFIG_NFT_NAT", nat, "meta l4proto tcp dnat ip to 192.0.2.1:1"})
		}
		return append(out, feature{"fib", "nft_fib_inet", "CONFIG_NFT_FIB_INET", filter, "fib daddr type local accept"})
	}
	if c.routed() {
		out = append(out, feature{"-m socket", "xt_socket", "CONFIG_NETFILTER_XT_MATCH_SOCKET", "mangle", "-m socket --transparent -j ACCEPT"},
			feature{"-j MARK", "xt_mark", "CONFIG_NETFILTER_XT_MARK", "mangle", "-j MARK --set-mark 1"})
	}
	if c.Mode == tproxy.TPROXY {
		out = append(out, feature{"-j TPROXY", "xt_TPROXY", "CONFIG_NETFILTER_XT_TARGET_TPROXY", "mangle", "-p tcp -j TPROXY --on-port 1"})
	} else {
		out = append(out, feature{"-j REDIRECT", "xt_REDIRECT", "CONFIG_NETFILTER_XT_TARGET_REDIRECT", "nat", "-p tcp -j REDIRECT --to-ports 1"})
	}
	return append(out,
		feature{"-m addrtype", "xt_addrtype", "CONFIG_NETFILTER_XT_MATCH_ADDRTYPE", "mangle", "-m addrtype --dst-type LOCAL -j ACCEPT"},
		feature{"-m multiport", "xt_multiport", "CONFIG_NETFILTER_XT_MATCH_MULTIPORT", "mangle", "-p tcp -m multiport --dports 1 -j ACCEPT"})
}

// explain is called after loading rules has failed with cause. It returns an error that names
// the missing kernel feature, because the tools only say "No such file or directory".
func (c Config) explain(ctx context.Context, cause error) error {
	if !installed(string(c.Backend)) || ctx.Err() != nil {
		return cause
	}
	other := IPTables
	if c.Backend == IPTables {
		other = NFT
	}
	for _, f := range c.features() {
		// A syntax error means that the program is too old, not that the kernel lacks a feature.
		if err := c.probe(ctx, f); err != nil && !strings.Contains(err.Error(), "syntax error") {
			return fmt.Errorf("%s: %s: the kernel lacks %s (%s); use --backend %s or load the module",
				c.Backend, f.name, f.module, f.config, other)
		}
	}
	return cause
}

func (c Config) probe(ctx context.Context, f feature) error {
	if c.Backend == NFT {
		_, err := run(ctx, fmt.Sprintf("table inet tprelay_probe {\nchain c {\n%s\n%s\n}\n}\n", f.chain, f.rule), "nft", "-c", "-f", "-")
		return err
	}
	var err error
	outside := inScratch(func() error {
		_, err = run(ctx, "", "iptables", append([]string{"-w", "5", "-t", f.chain, "-A", "PREROUTING"}, strings.Fields(f.rule)...)...)
		return nil
	})
	if outside != nil {
		return nil // unknown
	}
	return err
}
