package sockets

// Claim tells who asked to have something kept. Nobody does where it is zero.
type Claim struct {
	// By is the newest generation that did and serves, or has served.
	By int `json:"by,omitempty"`
	// Next is a generation that is starting: what it asks for holds when it serves, and is as if it had never been if it
	// comes to nothing.
	Next int `json:"next,omitempty"`
}

// Make notes that generation n asks for it, and reports whether that is a change.
func (c *Claim) Make(n int, starting bool) (changed bool) {
	was := *c
	if starting {
		c.Next = n
	} else {
		c.By = max(c.By, n)
	}
	return *c != was
}

// Drop notes that generation n does not want it any more: a newer one's wish stays. It reports whether that is a change.
func (c *Claim) Drop(n int, starting bool) (changed bool) {
	was := *c
	if starting && c.Next == n {
		c.Next = 0
	}
	if !starting && c.By <= n {
		c.By = 0
	}
	return *c != was
}

// Settle is for when the starting generation n serves.
func (c *Claim) Settle(n int) {
	if c.Next == n {
		c.By, c.Next = n, 0
	}
}
