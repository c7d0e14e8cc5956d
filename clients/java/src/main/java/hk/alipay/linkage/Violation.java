package hk.alipay.linkage;

import java.io.Serializable;

/** One invalid field of a request: its name in the proto, and a description of the fault. */
public record Violation(String field, String description) implements Serializable {}
