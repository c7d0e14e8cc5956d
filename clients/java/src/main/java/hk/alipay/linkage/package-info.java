/** The client of the AlipayHK gateway, and errors with the outcome and the next step. */
package hk.alipay.linkage;
