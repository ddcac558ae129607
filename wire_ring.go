package proxyless

import "fmt"

// maxRing is the largest ring, and its default.
const maxRing = 8 << 20

// clusterRing reads a Cluster.RingHashLbConfig.
func (d *decoding) clusterRing(message []byte, b *balancing) error {
	c := walk(message)
	for c.next() {
		switch c.num {
		case 1:
			c.fail(ringSize(&c, "minimum_ring_size", &b.minRing))
		case 3:
			if c.scalar("hash_function") != 0 {
				d.ignore("ring_hash_lb_config.hash_function")
			}
		case 4:
			c.fail(ringSize(&c, "maximum_ring_size", &b.maxRing))
		}
	}
	c.fail(b.checkRing())
	return c.err
}

// ringHash reads a RingHash policy.
func (d *decoding) ringHash(message []byte, x *cluster) error {
	b := &x.balance
	c := walk(message)
	for c.next() {
		switch c.num {
		case 1:
			if c.scalar("hash_function") > 1 { // DEFAULT_HASH is XX_HASH
				d.ignore("load_balancing_policy.hash_function")
			}
		case 2:
			c.fail(ringSize(&c, "minimum_ring_size", &b.minRing))
		case 3:
			c.fail(ringSize(&c, "maximum_ring_size", &b.maxRing))
		case 4:
			b.hostnames = b.hostnames || c.scalar("use_hostname_for_hashing") != 0
		case 5:
			c.fail(b.boundLoad(c.bytes("hash_balance_factor")))
		case 6:
			c.fail(inField("consistent_hashing_lb_config", d.hashing(c.bytes("consistent_hashing_lb_config"), b)))
		case 7:
			x.weighted = true
		}
	}
	c.fail(b.checkRing())
	return c.err
}

func ringSize(c *cursor, field string, to *uint64) error {
	n, err := decodeWrapped(c.bytes(field))
	if err == nil && n > maxRing {
		err = fmt.Errorf("%d is more than %d", n, maxRing)
	}
	*to = n
	return inField(field, err)
}

// checkRing wants a ring that can be made.
func (b *balancing) checkRing() error {
	if least, most := b.ring(); least > most {
		return inField("minimum_ring_size", fmt.Errorf("%d is more than maximum_ring_size, %d", least, most))
	}
	return nil
}

// ring is the sizes of the ring, with their defaults.
func (b *balancing) ring() (least, most uint64) {
	if least, most = b.minRing, b.maxRing; most == 0 {
		most = maxRing
	}
	if least == 0 {
		least = min(1024, most)
	}
	return least, most
}

// maglevTable reads the table_size, field 1, of a Cluster.MaglevLbConfig or of
// a Maglev policy.
func (d *decoding) maglevTable(message []byte, b *balancing) error {
	c := walk(message)
	for c.next() {
		if c.num != 1 {
			continue
		}
		n, err := decodeWrapped(c.bytes("table_size"))
		switch {
		case err != nil:
		case n > 5000011:
			err = fmt.Errorf("%d is more than 5000011", n)
		case n > 0 && !isPrime(n):
			err = fmt.Errorf("%d is not a prime number", n)
		}
		c.fail(inField("table_size", err))
		b.table = n
	}
	return c.err
}

func isPrime(n uint64) bool {
	for i := uint64(2); i*i <= n; i++ {
		if n%i == 0 {
			return false
		}
	}
	return n > 1
}

// maglev reads a Maglev policy.
func (d *decoding) maglev(message []byte, x *cluster) error {
	c := walk(message)
	for c.next() {
		switch c.num {
		case 2:
			c.fail(inField("consistent_hashing_lb_config", d.hashing(c.bytes("consistent_hashing_lb_config"), &x.balance)))
		case 3:
			x.weighted = true
		}
	}
	c.fail(d.maglevTable(message, &x.balance))
	return c.err
}

// hashing reads a ConsistentHashingLbConfig, that of a policy or of a cluster.
func (d *decoding) hashing(message []byte, b *balancing) error {
	c := walk(message)
	for c.next() {
		switch c.num {
		case 1:
			b.hostnames = b.hostnames || c.scalar("use_hostname_for_hashing") != 0
		case 2:
			c.fail(b.boundLoad(c.bytes("hash_balance_factor")))
		case 3:
			d.ignore("consistent_hashing_lb_config.hash_policy")
		}
	}
	return c.err
}

func (b *balancing) boundLoad(message []byte) error {
	n, err := decodeWrapped(message)
	if err == nil && n > 0 && n < 100 {
		err = fmt.Errorf("%d is less than 100", n)
	}
	b.bounded = uint32(n)
	return inField("hash_balance_factor", err)
}
