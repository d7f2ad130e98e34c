package rules

import (
	"context"
	"strings"
)

// loadNFT replaces the table. On error the old one stays as it was.
func (c Config) loadNFT(ctx context.Context) error {
	_, err := run(ctx, c.nftText(), "nft", "-f", "-")
	return err
}

// checkNFT asks the kernel whether it accepts the table. It changes nothing.
func (c Config) checkNFT(ctx context.Context) error {
	if _, err := run(ctx, c.nftText(), "nft", "-c", "-f", "-"); err != nil {
		return c.explain(ctx, err)
	}
	return nil
}

// unloadNFT deletes the table if it exists.
func unloadNFT(ctx context.Context) error {
	there, err := hasNFT(ctx)
	if err != nil || !there {
		return err
	}
	// The table is added first, so that it is no error if another process has just deleted it.
	_, err = run(ctx, "add table "+nftTable+"\ndelete table "+nftTable+"\n", "nft", "-f", "-")
	return err
}

func hasNFT(ctx context.Context) (bool, error) {
	tables, err := run(ctx, "", "nft", "list", "tables")
	for text := range strings.Lines(tables) {
		if strings.TrimSpace(text) == "table "+nftTable {
			return true, err
		}
	}
	return false, err
}

// listNFT returns the table as nft prints it, or nil if there is none.
func listNFT(ctx context.Context) ([]string, error) {
	if there, err := hasNFT(ctx); err != nil || !there {
		return nil, err
	}
	text, err := run(ctx, "", "nft", "list", "table", "inet", "tprelay")
	return trimmed(text), err
}

// verifyNFT compares the table with the one that the same text gives in a scratch namespace,
// because nft prints rules in its own form, which differs between versions.
func (c Config) verifyNFT(ctx context.Context) ([]Problem, error) {
	have, err := listNFT(ctx)
	if err != nil {
		return nil, err
	}
	fix := "tprelay rules apply " + c.Flags()
	if have == nil {
		return []Problem{{"nft: table " + nftTable + " is missing", fix}}, nil
	}
	var want []string
	err = inScratch(func() error {
		if err := c.loadNFT(ctx); err != nil {
			return c.explain(ctx, err)
		}
		var err error
		want, err = listNFT(ctx)
		return err
	})
	return difference("nft: table "+nftTable, fix, want, have), err
}

// trimmed returns the lines of text without surrounding blanks, empty lines and closing braces.
func trimmed(text string) []string {
	var out []string
	for l := range strings.Lines(text) {
		if l = strings.TrimSpace(l); l != "" && l != "}" {
			out = append(out, l)
		}
	}
	return out
}

// difference returns a Problem for each missing line and each unexpected line. If there are
// none, it returns one for a wrong order.
func difference(where, fix string, want, have []string) []Problem {
	count := map[string]int{}
	for _, l := range have {
		count[l]++
	}
	var out []Problem
	for _, l := range want {
		if count[l]--; count[l] < 0 {
			out = append(out, Problem{where + ": missing: " + l, fix})
		}
	}
	for _, l := range have {
		if count[l] > 0 {
			count[l]--
			out = append(out, Problem{where + ": unexpected: " + l, fix})
		}
	}
	for i := range want {
		if len(out) == 0 && want[i] != have[i] {
			return []Problem{{where + ": the rules are in a different order", fix}}
		}
	}
	return out
}
