package proxyless

// insert writes frames between two of grpc's. Where grpc itself said goodbye
// there is nothing to add.
func (c *gateConn) insert(frames []byte) {
	c.writing.Lock()
	defer c.writing.Unlock()
	switch {
	case c.goodbye.Load():
	case c.out.between():
		c.Conn.Write(frames) // where it fails, grpc's next read does
	default:
		c.note = frames
	}
}

// Write writes what grpc has to say. While the connection is pending it is held
// back: a caller that was told nothing and has to make room connects anew, where
// one that has read SETTINGS would lose the calls it began.
func (c *gateConn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	if !c.taken {
		c.held = append(c.held, b...)
		return len(b), nil
	}
	return c.write(b)
}

// speak writes what was held back.
func (c *gateConn) speak() {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.taken = true
	if len(c.held) > 0 {
		c.write(c.held) // where it fails, grpc's next read does
	}
	c.held = nil
}

// write writes, and what there is to insert at the first place where it may be.
// The caller holds writing.
func (c *gateConn) write(b []byte) (int, error) {
	if c.note == nil {
		n, err := c.Conn.Write(b)
		c.follow(b[:n], false)
		return n, err
	}
	at := c.follow(b, true)
	n, err := c.Conn.Write(b[:at])
	if err != nil {
		return n, err
	}
	if c.note != nil && c.out.between() {
		if _, err := c.Conn.Write(c.note); err != nil {
			return n, err
		}
		c.note = nil
	}
	if at == len(b) {
		return n, nil
	}
	more, err := c.Conn.Write(b[at:])
	c.follow(b[at:at+more], false)
	return n + more, err
}

// follow walks through what is written, to its end or to the first place
// between two frames.
func (c *gateConn) follow(b []byte, toEdge bool) (at int) {
	for at < len(b) {
		n, ended := c.out.step(b[at:])
		at += n
		if !ended {
			continue
		}
		if c.out.kind() == frameGoAway {
			c.goodbye.Store(true)
			c.note = nil
		}
		if toEdge && c.out.between() {
			break
		}
	}
	return at
}

// Read reads what the caller has to say.
func (c *gateConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.heed(b[:n]) {
		c.wire.Close()
		return 0, errLate
	}
	return n, err
}

// heed walks through what was read. It reports false where the caller goes on
// to open streams although it has heard that it is to leave.
func (c *gateConn) heed(b []byte) bool {
	if rest := len(preface) - c.greeted; rest > 0 {
		n := min(rest, len(b))
		c.greeted += n
		b = b[n:]
	}
	for len(b) > 0 {
		n, ended := c.in.step(b)
		b = b[n:]
		if !ended {
			continue
		}
		if !c.settled {
			c.settled = true
			c.gate.settle(c)
		}
		switch c.in.kind() {
		case frameHeaders:
			if id := c.in.stream(); id > c.newest {
				if c.heard.Load() {
					return false
				}
				c.newest = id
			}
		case framePing:
			if c.in.flags()&flagAck != 0 && c.in.body == leavePing && c.asked.Load() {
				c.heard.Store(true)
			}
		}
	}
	return true
}
