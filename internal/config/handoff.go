package config

func (t *table) handoff(h *Handoff) {
	*h = Handoff{Order: OrderStartFirst, Fetch: FetchNone, MaxDraining: 4}
	t.choice("order", &h.Order, OrderStartFirst, OrderSignalFirst)
	t.text("getsocks", &h.Getsocks, checkSocketPath)
	if t.has("getsocks") {
		h.Fetch = FetchGetsocks
	}
	t.choice("fetch", &h.Fetch, FetchGetsocks, FetchPidfd, FetchNone)
	if h.Fetch == FetchGetsocks && !t.has("getsocks") {
		t.fail("fetch", bad(`getsocks = "/run/…/admin.sock", the worker's own socket`, `"getsocks" needs handoff.getsocks`))
	}
	t.integer("max_draining", &h.MaxDraining, 1, 1000)
}
