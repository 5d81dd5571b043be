"""Attribution methods: one short file each, and the catalog that lists them."""
