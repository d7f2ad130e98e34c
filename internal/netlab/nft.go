package netlab

import (
	"context"
	"strings"
)

// NFT loads packet filter rules in the host, as nft -f does.
func (h *Host) NFT(ctx context.Context, text string) error {
	path, err := program("nft")
	if err != nil {
		return err
	}
	c := h.Command(ctx, path, "-f", "-")
	c.Stdin = strings.NewReader(text)
	return c.Run()
}
