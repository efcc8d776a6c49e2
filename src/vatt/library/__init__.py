"""A searchable library: any films embedded window by window, and the index over them."""
