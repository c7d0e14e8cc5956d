package hk.alipay.linkage;

import java.io.Serializable;

/** One fault of a request: the field's name in the proto, and what is wrong with it. */
public record Violation(String field, String description) implements Serializable {}
